"""Base weights that two processes hold in parts train as one process does that holds them all."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from test_ranks import FIGURES, Order, StopAt, begin
from trainers import PROMPTS, trainer_of
from transformers import AutoModelForCausalLM, CTRLConfig, CTRLLMHeadModel
from twins import Family, llama3, llama32, save_twin

from yoyak.core.errors import UserError
from yoyak.core.gpu import PROCESSES_WITHOUT_GPU
from yoyak.core.limits import LimitsParams
from yoyak.core.records import read_json, write_records
from yoyak.core.workers import Workers
from yoyak.modeling import weights
from yoyak.modeling.loading import check_finite, quantised
from yoyak.modeling.precision import choose
from yoyak.modeling.spec import QuantizationParams
from yoyak.preflight.check import read_params
from yoyak.preflight.resolve import ResolvedModel, resolve
from yoyak.training import memory, sharding
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.ranks import Ranks
from yoyak.training.resume import go_on
from yoyak.training.run import Training, train
from yoyak.tuning.run import Tuning, tune

PARAMS = read_params(ROOT / "params.yaml")
FORGOTTEN = 10_000
"""Bytes that a pass may leave: fewer than any layer's."""
FEW_TOKENS = 250
"""At once: two or three rows, so that each rank has several micro-batches."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output head is a weight of its own."""
    return save_twin(llama3, tmp_path_factory.mktemp("twin") / "llama3")


class Pool:
    """Two processes, which take long to start: others are started where they are needed once these have ended."""

    def __init__(self) -> None:
        self.open = ExitStack()
        self.workers: Workers | None = None

    def run(self, orders: list[Order]) -> list[Any]:
        if self.workers is None:
            self.workers = self.open.enter_context(Workers("twin", ["", ""], begin))
        try:
            self.workers.tell(orders)
            return [result for _, result in sorted(self.workers.results(), key=lambda each: each[0])]
        except UserError:
            self.workers = None
            self.open.close()
            raise


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    with pool.open:
        yield pool


def together(pool: Pool, count: int, meeting: Path, call: Callable[[Ranks], Any]) -> list[Any]:
    """What each of so many ranks returns; they have parts of the weights where they are two."""
    return pool.run([(Ranks(number, count, str(meeting), count > 1), call) for number in range(2)])


def training(twin: Path, scratch: Path, bits: int, ranks: Ranks, stop_at: int = 0, scarce: bool = False) -> Any:
    """Figures, adapters and budget. `scarce`: on the last rank memory runs out in a late pass."""
    with ranks.together():
        trainer, _ = trainer_of(
            twin,
            scratch,
            load_in_4bit=bits == 4,
            sharded=ranks.sharded,
            best_by="rouge",
            rouge_rows=7,
            effective_batch_size=11,
            epochs=2,
        )
        trainer.args.logging_steps = 1
        trainer.ranks = ranks
        if stop_at:
            trainer.add_callback(StopAt(stop_at))
        if scarce and ranks.number == ranks.count - 1:
            trainer.compute_loss = out_of_memory_late(trainer.compute_loss)
        ranks.start_alike(trainer.model)
        go_on(trainer, last_checkpoint(scratch))
    return {
        "figures": {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in FIGURES},
        "adapters": {name: weight.tolist() for name, weight in trainer.model.named_parameters() if "lora_" in name},
        "base": trainer.ran_with["base"],
        "tokens": trainer.budget.tokens,
    }


def out_of_memory_late(compute_loss: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def scarce(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return compute_loss(*args, **kwargs)

    return scarce


def on(pool: Pool, count: int, twin: Path, scratch: Path, bits: int = 16, **options: Any) -> Any:
    """What the first of so many ranks says, having seen that the other says the same."""
    scratch.mkdir(exist_ok=True)
    if not (scratch / memory.RAN_OUT).exists():
        memory.ran_out(scratch, 2 * FEW_TOKENS, 0)
    call = partial(training, twin, scratch, bits, **options)
    # Of a meeting that was broken off its file is left.
    with TemporaryDirectory() as folder:
        first, *others = together(pool, count, Path(folder, "meeting"), call)
    assert all(other["figures"] == first["figures"] for other in others)
    return first


def assert_same(mine: Any, expected: Any) -> None:
    for key in FIGURES:
        assert mine["figures"][key] == pytest.approx(expected["figures"][key], rel=1e-5), key
    assert mine["adapters"].keys() == expected["adapters"].keys()
    for name, values in mine["adapters"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(expected["adapters"][name]), rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def of_one(pool: Pool, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Of one process, by the bits of its base."""
    return {bits: on(pool, 1, twin, tmp_path_factory.mktemp("one") / str(bits), bits) for bits in (16, 4)}


@pytest.mark.parametrize("bits", [16, 4])
def test_losses_figures_of_dev_and_adapters_are_those_of_one_process(
    pool: Pool, twin: Path, of_one: dict[int, Any], tmp_path: Path, bits: int
) -> None:
    """Where a rank has no row at all, too: each epoch ends in a batch of one."""
    sharded = on(pool, 2, twin, tmp_path / "two", bits)
    assert len(sharded["figures"]["loss"]) == 4
    assert sharded["tokens"] == FEW_TOKENS
    assert sharded["base"].startswith("4 bits" if bits == 4 else "float32")
    assert sharded["base"].endswith("sharded over 2 processes")
    assert_same(sharded, of_one[bits])


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_either_goes_on_from_the_others_checkpoint(
    pool: Pool, twin: Path, of_one: dict[int, Any], tmp_path: Path, first: int, then: int
) -> None:
    scratch = tmp_path / "training"
    on(pool, first, twin, scratch, stop_at=2)
    assert last_checkpoint(scratch) is not None
    assert_same(on(pool, then, twin, scratch), of_one[16])


def test_where_no_smaller_pass_is_left_the_training_ends(tmp_path: Path) -> None:
    def attempt() -> None:
        memory.ran_out(tmp_path, tokens=100, longest_row=100)
        raise UserError("out of memory")

    with pytest.raises(UserError, match=r"^out of memory$"):
        memory.until_it_fits(tmp_path, attempt)


@pytest.mark.parametrize(("family", "whole"), [(llama3, 0), (llama32, 1)], ids=["own head", "tied"])
@pytest.mark.parametrize("bits", [16, 4])
def test_each_rank_holds_its_part_alone(pool: Pool, tmp_path: Path, family: Family, whole: int, bits: int) -> None:
    """Of layers, embeddings and head; tied ones are whole, and norms small. After a pass there is no more than before:
    what was gathered is gone."""
    folder = save_twin(family, tmp_path / "twin")
    parts = together(pool, 2, tmp_path / "meeting", partial(bytes_held, folder, bits))
    assert sum(part["weights"] for part in parts) == parts[0]["all"]
    for part in parts:
        assert part["weights"] == pytest.approx(part["all"] / 2, rel=0.01)
        assert part["plainly"] == [64, *[64 * part["vocabulary"]] * whole]
        assert part["after a pass"] - part["before"] < FORGOTTEN


def bytes_held(folder: Path, bits: int, ranks: Ranks) -> dict[str, Any]:
    with ranks.together():
        quantization = QuantizationParams(load_in_4bit=bits == 4, type="nf4", double=True)
        model = sharding.load_part(choose("fp32"), quantization, folder, "twin")
        parts = [weight for weight in model.parameters() if hasattr(weight, "to_local")]
        before = alive()
        with torch.no_grad():
            model(input_ids=torch.arange(40)[None])
        return {
            "weights": sum(weight.to_local().nbytes for weight in parts),
            "all": sum(weight.numel() * weight.element_size() for weight in parts),
            "plainly": sorted(weight.numel() for weight in model.parameters() if not hasattr(weight, "to_local")),
            "vocabulary": model.config.vocab_size,
            "before": before,
            "after a pass": settled(before + FORGOTTEN),
        }


def settled(bytes_: int) -> int:
    """All tensors' bytes, once they are so few, or after some seconds: gloo lets go of what it has sent in a thread of
    its own, when it comes to it."""
    for _ in range(100):
        if alive() < bytes_:
            break
        time.sleep(0.1)
    return alive()


def alive() -> int:
    """Bytes of all tensors of this process."""
    gc.collect()
    storages = {}
    for each in gc.get_objects():
        if type(each) in (torch.Tensor, torch.nn.Parameter):
            storage = each.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def test_a_weight_that_is_no_number_is_told_before_it_is_packed(pool: Pool, tmp_path: Path) -> None:
    """Packed ones are not looked at: their bits as fp32 may be no number, and mostly some are."""
    folder = save_twin(llama3, tmp_path / "twin")
    assert together(pool, 2, tmp_path / "whole", partial(error_of, folder)) == [None, None]
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    model.save_pretrained(folder)
    told = "twin: its weights have values that are no numbers (NaN or infinite), in mlp.up_proj.weight"
    assert together(pool, 2, tmp_path / "damaged", partial(error_of, folder)) == [told, told]


def error_of(folder: Path, ranks: Ranks) -> str | None:
    """Of weights in 4 bits, as they are loaded."""
    with ranks.together():
        quantization = QuantizationParams(load_in_4bit=True, type="nf4", double=True)
        try:
            check_finite(sharding.load_part(choose("fp32"), quantization, folder, "twin"), "twin")
        except UserError as error:
            return str(error)
        return None


def test_memory_that_runs_out_in_a_pass_ends_all_and_smaller_passes_go_on(
    pool: Pool, twin: Path, of_one: dict[int, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "two"
    attempts = []

    def attempt() -> Any:
        attempts.append(last_checkpoint(scratch))
        if len(attempts) > 1:
            return training(twin, scratch, 16, Ranks())
        return on(pool, 2, twin, scratch, scarce=True)

    result = memory.until_it_fits(scratch, attempt)
    assert len(attempts) == 2
    assert attempts[1] is not None
    assert memory.most_tokens(scratch) == FEW_TOKENS // 2
    assert f"out of GPU memory with {FEW_TOKENS} tokens at once" in capsys.readouterr().out
    assert_same(result, of_one[16])


def test_weights_in_4_bits_already_and_models_without_layers_are_refused(twin: Path, tmp_path: Path) -> None:
    in_4_bits = QuantizationParams(load_in_4bit=True, type="nf4", double=True)
    quantised(choose("fp32"), in_4_bits, twin).save_pretrained(tmp_path / "packed")
    CTRLLMHeadModel(CTRLConfig(vocab_size=9, n_embd=8, dff=8, n_layer=1, n_head=1)).save_pretrained(tmp_path / "ctrl")
    for name, why in (("packed", "its weights are quantised already"), ("ctrl", "CTRLLMHeadModel has no layers")):
        with pytest.raises(UserError, match=f"/{name}: {why}"):
            sharding.load_part(choose("fp32"), in_4_bits, tmp_path / name, name)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 300))
def test_batches_of_dev_have_all_rows_in_order_and_within_the_budget(rows: list[int], size: int, most: int) -> None:
    batches = memory.within(rows, size, most, lambda row: row)
    assert [row for batch in batches for row in batch] == rows
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(batch) <= most


@pytest.fixture
def configs(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedModel:
    """Of the twin, with prompts in the current folder."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "dev"):
        write_records(Path(f"data/prompts/{split}.jsonl"), PROMPTS)
    entry = {"weights": str(twin), "method": "lora", "dtype": "fp32", "prompt": "structured", "training": {"epochs": 1}}
    params = PARAMS.model_copy(update={"models": {"twin": entry}})
    return resolve(params, "twin", weights.pin(str(twin), "twin"))


def test_the_stage_trains_saves_and_tells(configs: ResolvedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROCESSES_WITHOUT_GPU, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    limits = PARAMS.limits.model_copy(update={"gpus": 2, "sharded": True, "free_gb": 0.1})
    train(Training("twin", configs.training, limits, PARAMS.tracking))
    record = read_json(Path("metrics/train/twin.json"))
    assert record["base"] == "4 bits, computing in float32, sharded over 2 processes"
    assert record["compiled"] == "no: weights are sharded"
    assert record["gradient_checkpointing"]
    assert record["ran"]["processes"] == "2 share each step"
    assert Path("models/twin/adapter_model.safetensors").exists()


def test_what_cannot_be_sharded_is_refused(configs: ResolvedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = LimitsParams(sharded=True)
    with pytest.raises(UserError, match=r"^params.yaml: limits.sharded: weights are .* raise limits.gpus \(it is 1\)"):
        train(Training("twin", configs.training, limits, PARAMS.tracking))
    monkeypatch.setenv(PROCESSES_WITHOUT_GPU, "1")
    full = resolve(PARAMS, "bart_mini", None).training
    with pytest.raises(UserError, match=r"^params.yaml: limits.sharded: bart_mini has method: full, and .* set "):
        train(Training("bart_mini", full, LimitsParams(gpus=2, sharded=True), PARAMS.tracking))
    assert configs.tuning is not None
    with pytest.raises(UserError, match=r"^params.yaml: limits.sharded: twin_tuned is tuned on one GPU"):
        tune(Tuning("twin", configs.tuning, LimitsParams(gpus=2, sharded=True)))
