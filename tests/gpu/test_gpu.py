"""What only a GPU shows: kernels, loss scaling, compiled layers, recorded graphs, memory that really runs out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import beam_searches
import pytest
import torch
import trainers
from trainers import full_trainer_of, losses, our_gradients, plain_gradients, trainer_of, warmed_up
from transformers import AutoModelForCausalLM, TrainerCallback
from twins import Family, bart, gemma3, llama32, qwen3, qwen25, save_twin

from yoyak.core import gpu
from yoyak.inference import decoding, forward
from yoyak.inference.decoding import Candidates, Choose, Request
from yoyak.inference.fused import supports_fused
from yoyak.inference.hf_decoding import log_probabilities
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import Chooser, GeneratedTokens
from yoyak.modeling import precision, weights
from yoyak.modeling.attention import supports_flash
from yoyak.modeling.cuda_graphs import SharedMemory
from yoyak.modeling.spec import ModelSpec, QuantizationParams
from yoyak.training import attention, greedy, qlora, seq2seq, steps
from yoyak.training.base_model import dequantize, load_for_training
from yoyak.training.graphed import GraphedPasses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NF4 = QuantizationParams(load_in_4bit=True, type="nf4", double=True)


def spec_of(twin: Path, dtype: str) -> ModelSpec:
    pin = weights.pin(str(twin), "twin")
    return ModelSpec.model_validate(
        {"weights": str(twin), "pin": pin, "method": "lora", "dtype": dtype, "prompt": "structured"}
    )


def gemma3_with_its_long_heads() -> Any:
    config, tokenizer = gemma3()
    config.head_dim = 256
    return config, tokenizer


@pytest.fixture(params=[llama32, qwen25, qwen3, gemma3, gemma3_with_its_long_heads])
def twin(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family: Family = request.param
    return save_twin(family, tmp_path / "twin")


def test_the_kernel_sees_each_row_alone(twin: Path, tmp_path: Path) -> None:
    """Gradients of packed rows are those of padded ones; Gemma's window is shorter than a row."""
    trainer, rows = trainer_of(twin, tmp_path / "scratch", dtype="bf16")
    assert trainer.ran_with["attention"] == attention.KERNEL
    ours = our_gradients(warmed_up(trainer), rows.rows)
    plain = plain_gradients(trainer, rows.rows)
    assert torch.cosine_similarity(ours, plain, dim=0) > 0.999


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_both_dtypes_train_and_infer(tmp_path: Path, dtype: str) -> None:
    """fp16 with loss scaling: its first steps may be skipped, and the loss falls all the same."""
    twin = save_twin(llama32, tmp_path / "twin")
    trainer, rows = trainer_of(twin, tmp_path / "scratch", dtype=dtype, epochs=6)
    curve = losses(trainer)
    assert curve[-1] < curve[0] - 0.5
    scaler = trainer.accelerator.scaler
    assert (scaler is not None and scaler.get_scale() > 1) == (dtype == "fp16")
    trainer.model.save_pretrained(tmp_path / "adapter")
    trainer.processing_class.save_pretrained(tmp_path / "adapter")
    spec = spec_of(twin, dtype)
    loaded = load_for_inference(spec, tmp_path / "adapter")
    prompt = torch.tensor([rows.rows[0]["input_ids"]], device="cuda")
    assert loaded.model.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert loaded.model(input_ids=prompt).logits.isfinite().all()


def test_a_card_without_bf16_trains_in_fp16_with_its_loss_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a T4, a V100 or an RTX 20: this card is only told that it has no bf16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    twin = save_twin(llama32, tmp_path / "twin")
    trainer, rows = trainer_of(twin, tmp_path / "scratch", dtype="bf16", epochs=6)
    curve = losses(trainer)
    assert curve[-1] < curve[0] - 0.5
    assert trainer.accelerator.scaler.get_scale() > 1
    loaded = load_for_inference(spec_of(twin, "bf16"), None)
    assert (loaded.precision.dtype, loaded.precision.why) == ("fp16", precision.FP16_FOR_BF16)
    prompt = torch.tensor([rows.rows[0]["input_ids"]], device="cuda")
    assert loaded.model(input_ids=prompt).logits.isfinite().all()


def test_compiled_layers_change_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = save_twin(llama32, tmp_path / "twin")
    curves = []
    for compiled_from, generated in ((10**12, "no: "), (0, "yes")):
        monkeypatch.setattr(qlora, "COMPILED_FROM", compiled_from)
        trainer, _ = trainer_of(twin, tmp_path / generated.strip(": "), dtype="bf16")
        assert trainer.ran_with["compiled"].startswith(generated)
        curves.append(losses(trainer))
    assert curves[1] == pytest.approx(curves[0], rel=0.01)


@pytest.fixture
def memory_cap() -> Iterator[Callable[[int], None]]:
    """Sets how many bytes more the process may take."""

    def cap(more: int) -> None:
        gpu.release_memory()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield cap
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_runs_out_costs_no_step(
    tmp_path: Path, memory_cap: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps so large that what PyTorch holds in reserve does not matter."""
    twin = save_twin(llama32, tmp_path / "twin")
    monkeypatch.setattr(trainers, "PROMPTS", trainers.PROMPTS * 40)
    plain, rows = trainer_of(twin, tmp_path / "plain", dtype="bf16", effective_batch_size=480, epochs=3)
    gpu.release_memory()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    plain.budget.tokens, plain.budget._measured = 200_000, True
    expected = losses(plain)
    whole_step = torch.cuda.max_memory_reserved() - before
    trainer, _ = trainer_of(twin, tmp_path / "scarce", dtype="bf16", effective_batch_size=480, epochs=3)
    memory_cap(whole_step // 2)
    # As if the first measurement had been too hopeful.
    trainer.budget.tokens, trainer.budget._measured = 200_000, True
    assert losses(trainer) == pytest.approx(expected, rel=0.01)
    assert trainer.budget.tokens < rows.tokens
    assert "running out of memory" in trainer.budget.why


def test_unpacked_weights_are_what_4_bits_compute_with(tmp_path: Path) -> None:
    twin = save_twin(llama32, tmp_path / "twin")
    spec = spec_of(twin, "bf16")
    model = load_for_training(spec, NF4, []).model
    ids = torch.arange(100, device="cuda")[None]
    packed = model(input_ids=ids).logits.detach().float()
    dense, what = dequantize(model)
    assert what == "4-bit values in bfloat16"
    assert torch.allclose(dense(input_ids=ids).logits.float(), packed, rtol=0.02, atol=0.02)


NEXT_TO_BEST = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Of logits whose standard deviation is 0.16; on a CPU 0, 0.0005 and 0.008 are not exceeded."""


@pytest.mark.parametrize("dtype", NEXT_TO_BEST)
def test_each_token_is_next_to_best_for_the_plain_model(twin: Path, dtype: torch.dtype) -> None:
    """Through recorded graphs, recorded anew as places are given on, narrowed and closed, and answers grow.

    Not the very tokens of `generate`: where two are as good as equal, roundings tell.
    """
    model = AutoModelForCausalLM.from_pretrained(twin, dtype=dtype).to("cuda").eval()
    # So that attention matters, and not the last token alone.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(6 if "proj" in name else 1)
    prompts = [list(range(5, 5 + length)) for length in (90, 75, 50, 30, 30, 20, 7)]

    def fan_out(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
        ranked = logits.topk(2).indices
        return torch.where(generated.counts[:, None] == 0, ranked[:, 0], ranked[..., 0])

    ends = [decode(model, prompts[:1], fan_out, [1999])[0][1].ids[0][40], 1999]
    lengths = set()
    for number, row in decode(model, prompts, fan_out, ends):
        for answer in filter(lambda answer: len(answer) > 1, row.ids):
            lengths.add(len(answer))
            ids = torch.tensor([prompts[number] + answer], device="cuda")
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(prompts[number]) : -1].float()
            chosen = logits.gather(-1, torch.tensor(answer[1:], device="cuda")[:, None])[:, 0]
            assert (logits.amax(-1) - chosen).max() < NEXT_TO_BEST[dtype]
    assert len(lengths) > 1


@pytest.mark.parametrize("answers", [1, 3, 12])
def test_kernels_compute_what_plain_products_do(twin: Path, answers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over prompts and answers of different lengths, at places that are given on: the fused kernels, transformers'
    modules with FlashAttention, and with products."""
    model = AutoModelForCausalLM.from_pretrained(twin, dtype=torch.bfloat16).to("cuda").eval()
    prompts = [list(range(5, 5 + length)) for length in (90, 75, 50, 30, 30, 20, 7)]

    def walk(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
        """A path that no rounding changes, another one for each answer, which ends early or late."""
        answer = torch.arange(logits.shape[1], device="cuda")
        over = generated.counts[:, None] > 20 * (answer + 1)
        return torch.where(over, 1999, 7 + (31 * generated.counts[:, None] + 113 * answer) % 1000)

    def log_probabilities() -> torch.Tensor:
        rows = decoding.decode([model], [prompts], 3, Request(answers, 80, [1999], walk))
        return torch.tensor([row.log_probabilities for _, row in sorted(rows, key=lambda pair: pair[0])])

    assert supports_fused(model)
    assert supports_flash(model)
    fused = log_probabilities()
    assert fused.std() > 0.001
    monkeypatch.setattr(forward, "supports_fused", lambda model: False)
    by_flash = log_probabilities()
    monkeypatch.setattr(forward, "supports_flash", lambda model: False)
    by_products = log_probabilities()
    assert not torch.equal(by_flash, by_products)
    assert torch.allclose(by_flash, by_products, atol=0.01)
    assert torch.allclose(fused, by_products, atol=0.01)


def test_a_prompt_that_gives_up_its_pages_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no more pages than the longest dialogue needs, the same answers, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(save_twin(llama32, tmp_path / "twin"), dtype=torch.float32)
    model = model.to("cuda").eval()
    prompts = [list(range(5, 5 + length)) for length in (90, 75, 50, 30, 30, 20, 7)]
    given_up: list[int] = []
    give_up = decoding.Slots.give_up_newest
    monkeypatch.setattr(decoding.Slots, "give_up_newest", lambda slots: given_up.append(give_up(slots)) or given_up[-1])

    def greedy(logits: torch.Tensor, _: GeneratedTokens) -> torch.Tensor:
        return logits.argmax(-1)

    roomy = sorted(decode(model, prompts, greedy, [1999]), key=lambda pair: pair[0])
    assert not given_up
    monkeypatch.setattr(gpu, "free_memory", lambda: 0)
    assert [row.ids for _, row in sorted(decode(model, prompts, greedy, [1999]), key=lambda pair: pair[0])] == [
        row.ids for _, row in roomy
    ]
    assert given_up


@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_an_average_of_two_is_recorded_with_all_penalties(tmp_path: Path, search: str) -> None:
    """As the second search of faulty summaries asks for them. A model averaged with itself is that model."""
    model = AutoModelForCausalLM.from_pretrained(save_twin(llama32, tmp_path / "twin"), dtype=torch.float32)
    model = model.to("cuda").eval()
    prompts = [list(range(5, 5 + length)) for length in (90, 50, 30, 7)]
    params = GenerationParams.model_validate(
        {
            "search": search,
            "candidates": 1 if search == "greedy" else 3,
            "max_new_tokens": 20,
            "batch_size": 3,
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 2,
            "min_new_tokens": 4,
        }
    )

    def generated(members: list[Any]) -> list[list[list[int]]]:
        chooser = Chooser(params, [1999], model.device, range(len(prompts)))
        request = Request(params.candidates, params.max_new_tokens, [1999], chooser.choose, chooser.facts)
        rows = decoding.decode(members, [prompts] * len(members), 3, request)
        return [row.ids for _, row in sorted(rows, key=lambda pair: pair[0])]

    assert generated([model, model]) == generated([model])


def decode(model: Any, prompts: list[list[int]], choose: Choose, ends: list[int]) -> list[tuple[int, Candidates]]:
    return list(decoding.decode([model], [prompts], 4, Request(2, 80, ends, choose)))


def test_4_bit_weights_are_decoded_through_graphs_too(tmp_path: Path) -> None:
    twin = save_twin(llama32, tmp_path / "twin")
    loaded = load_for_inference(spec_of(twin, "bf16"), None, NF4)
    prompts = [list(range(5, 5 + length)) for length in (90, 7)]

    def greedy(logits: torch.Tensor, _: GeneratedTokens) -> torch.Tensor:
        return logits.argmax(-1)

    runs = [sorted(decode(loaded.model, prompts, greedy, [1999]), key=lambda pair: pair[0]) for _ in range(2)]
    assert runs[0] == runs[1]
    for number, row in runs[0]:
        second_pass = log_probabilities([loaded.model], [[prompts[number]]], row.ids[:1])
        assert row.log_probabilities[:1] == pytest.approx(second_pass, abs=0.05)


@pytest.mark.parametrize("search", beam_searches.SEARCHES)
@pytest.mark.parametrize("family", beam_searches.FAMILIES)
def test_beams_are_those_of_generate(family: Family, search: str, tmp_path: Path) -> None:
    """In fp32, through recorded graphs, recorded anew as slots are given on, narrowed and closed, and beams grow."""
    torch.set_float32_matmul_precision("highest")  # Training may have left it lower.
    loaded = beam_searches.load(family, tmp_path / "twin", 0)
    prompts, params = [beam_searches.encoded(loaded)], beam_searches.params_of(**beam_searches.SEARCHES[search])
    ends = beam_searches.some_ends(loaded)
    expected = beam_searches.theirs([loaded], prompts, params, ends)
    # A GPU sums up batches of other shapes in another order.
    beam_searches.assert_same(beam_searches.ours([loaded], prompts, params, ends), expected, within=1e-3)


@pytest.mark.parametrize("family", [bart, llama32, qwen25, qwen3, gemma3, gemma3_with_its_long_heads])
def test_beams_in_16_bits_know_how_likely_they_are(family: Family, tmp_path: Path) -> None:
    """As a second pass over the finished texts tells: so no beam takes another's past for its own. T5's twin has such
    large logits that 16 bits do not hold them."""
    loaded = beam_searches.load(family, tmp_path / "twin", 0)
    loaded.model.to(torch.bfloat16)
    prompts, params = beam_searches.encoded(loaded), beam_searches.params_of(num_beams=4, candidates=4)
    rows = beam_searches.ours([loaded], [prompts], params, beam_searches.some_ends(loaded))
    assert len({len(answer) for row in rows for answer in row.ids}) > 1
    for prompt, row in zip(prompts, rows, strict=True):
        again = log_probabilities([loaded.model], [[prompt] * len(row.ids)], row.ids)
        assert row.log_probabilities == pytest.approx(again, abs=0.1)


@pytest.mark.parametrize("family", beam_searches.ENCODER_DECODERS)
@pytest.mark.parametrize("max_new_tokens", [20, 80])
def test_greedy_summaries_of_dev_are_those_of_generate(family: Family, max_new_tokens: int, tmp_path: Path) -> None:
    """In fp32, through recorded graphs, recorded anew as summaries leave and grow."""
    torch.set_float32_matmul_precision("highest")  # Training may have left it lower.
    loaded = beam_searches.load(family, tmp_path / "twin", 0)
    prompts = beam_searches.encoded(loaded)
    ends = beam_searches.greedy_ends(loaded, prompts)
    expected = beam_searches.greedy_of_generate(loaded, prompts, max_new_tokens, ends)
    assert greedy.summaries(loaded.model, prompts, max_new_tokens, ends) == expected


@pytest.fixture(params=beam_searches.ENCODER_DECODERS)
def encoder_decoder_twin(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family: Family = request.param
    return save_twin(family, tmp_path / "twin")


@pytest.mark.parametrize("in_part", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [False, True])
def test_recorded_passes_change_no_loss(
    encoder_decoder_twin: Path,
    tmp_path: Path,
    dtype: str,
    dropout: bool,
    in_part: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And draw the same dropout: without it a loss differs by more. Each epoch ends with a look at dev. In part: three
    rows of a step are too many to be recorded, and the fourth is not."""
    if in_part:
        monkeypatch.setattr(seq2seq, "GPU_WIDTH_STEP", 512)
        monkeypatch.setattr(steps, "MOST_GRAPHED_TOKENS", 1024)
    curves = []
    for recorded in (False, True):
        options = {"dtype": dtype, "dropout": dropout, "epochs": 6, "learning_rate": 0.002}
        trainer, _ = full_trainer_of(encoder_decoder_twin, tmp_path / str(recorded), **options)
        # Several micro-batches a step, also in the first one, whose size is found out.
        trainer.budget.tokens, trainer.budget._measured = 3 * 1024 if in_part else 300, True
        assert trainer.ran_with["cuda_graphs"] == "yes"
        if not recorded:
            trainer.passes = None
        curves.append(losses(trainer))
    rows = {dict(shapes)["input_ids"][0] for shapes in trainer.passes._recorded}
    assert rows == {1} if in_part else rows
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=0.002 if dtype == "fp32" else 0.01)


def test_recorded_steps_share_their_memory() -> None:
    """Smaller ones before larger ones, which fit into none of their holes; and graphs may outlive what shares it."""
    weight = torch.randn(2048, 2048, device="cuda", requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    sizes, graphs = (8_000, 12_000, 16_000, 24_000, 20_000), []

    def step(size: int) -> torch.Tensor:
        inputs = torch.ones(size, 2048, device="cuda")
        loss = torch.relu(torch.relu(inputs @ weight) @ weight).mean()
        loss.backward()
        return loss.detach()

    gpu.release_memory()
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    step(max(sizes))
    takes = torch.cuda.max_memory_allocated() - allocated
    gpu.release_memory()
    before = torch.cuda.memory_reserved()
    memory = SharedMemory(int(1.1 * takes))
    for size in sizes:
        expected = memory.run(lambda size=size: step(size))  # type: ignore[misc]
        graph, loss = memory.record(lambda size=size: step(size))  # type: ignore[misc]
        graphs.append((graph, loss, expected))
    assert torch.cuda.memory_reserved() - before < 1.4 * takes
    del memory
    for graph, loss, expected in graphs:
        graph.replay()
        assert torch.equal(loss, expected)


def test_memory_of_graphs_is_given_back() -> None:
    """With what cuBLAS took of it."""
    model = torch.nn.Linear(4096, 4096, device="cuda")
    passes = GraphedPasses(model, lambda: 2**30)

    def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = model(inputs["rows"]).square().mean()
        loss.backward()
        return loss.detach()

    inputs = {"rows": torch.ones(4096, 4096, device="cuda")}
    expected = run(inputs)
    passes.learn_places_of_gradients()
    gpu.release_memory()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        assert torch.allclose(passes(run, inputs), expected)
    assert torch.cuda.memory_reserved() - before >= 2**30
    assert passes.forget()
    gpu.release_memory()
    assert torch.cuda.memory_reserved() - before < 2**27
    assert torch.allclose(passes(run, inputs), expected)


def recorded_and_plain(make: Callable[[str], Any]) -> tuple[list[float], list[float]]:
    """Losses of two trainers over packed rows, several micro-batches a step."""
    curves = []
    for kind in ("recorded", "plain"):
        trainer = make(kind)
        assert trainer.ran_with["cuda_graphs"] == "yes"
        trainer.budget.tokens, trainer.budget._measured = 300, True
        if kind == "plain":
            trainer.passes = None
        curves.append(losses(trainer))
        assert kind == "plain" or trainer.passes._recorded
    assert curves[0][-1] < curves[0][0]
    return curves[0], curves[1]


def test_recorded_packed_passes_change_no_loss(twin: Path, tmp_path: Path) -> None:
    recorded, plain = recorded_and_plain(lambda kind: trainer_of(twin, tmp_path / kind, dtype="bf16", epochs=6)[0])
    assert recorded == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize("options", [{"dtype": "fp16"}, {"dtype": "bf16", "load_in_4bit": True}])
def test_passes_are_recorded_in_all_dtypes(tmp_path: Path, options: dict[str, Any]) -> None:
    """With its loss scaled, and over 4-bit weights that are unpacked at each use."""
    twin = save_twin(llama32, tmp_path / "twin")
    recorded, plain = recorded_and_plain(lambda kind: trainer_of(twin, tmp_path / kind, epochs=6, **options)[0])
    assert recorded == pytest.approx(plain, rel=0.01)


def test_compiled_layers_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, drawn anew each time: else the loss of the same rows would come again where nothing is learned."""
    monkeypatch.setattr(qlora, "COMPILED_FROM", 0)
    twin = save_twin(llama32, tmp_path / "twin")
    recorded, plain = recorded_and_plain(lambda kind: trainer_of(twin, tmp_path / kind, dtype="bf16", epochs=6)[0])
    assert recorded == pytest.approx(plain, rel=0.01)
    trainer, _ = trainer_of(
        twin, tmp_path / "still", dtype="bf16", epochs=8, learning_rate=1e-30, effective_batch_size=12, dropout=0.5
    )
    warmed_up(trainer)
    of_steps = losses(trainer)
    assert trainer.passes._recorded
    assert len(set(of_steps)) == len(of_steps)


def test_dev_is_summarised_in_16_bits(encoder_decoder_twin: Path, tmp_path: Path) -> None:
    """Though the trainer has wrapped the model that is copied for it."""
    trainer, _ = full_trainer_of(encoder_decoder_twin, tmp_path / "scratch", dtype="bf16", epochs=2)
    losses(trainer)
    assert trainer._as_inference_loads_it().dtype == torch.bfloat16
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert all("eval_rouge_mean" in entry for entry in trainer.state.log_history if "eval_loss" in entry)


def test_memory_that_runs_out_beside_recorded_passes_costs_no_step(
    tmp_path: Path, memory_cap: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = save_twin(bart, tmp_path / "twin")
    monkeypatch.setattr(trainers, "PROMPTS", trainers.PROMPTS * 40)
    monkeypatch.setattr(steps, "MOST_GRAPHED_TOKENS", 10**9)

    class MemoryRunsOut(TrainerCallback):
        """Once a step has shown how much it takes."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                gpu.release_memory()
                more = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
                memory_cap(more // 2)

    curves = []
    for scarce in (False, True):
        trainer, _ = full_trainer_of(twin, tmp_path / str(scarce), dtype="bf16", effective_batch_size=480, epochs=4)
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.args.load_best_model_at_end = False
        trainer.budget.tokens, trainer.budget._measured = 10**6, True
        if scarce:
            trainer.add_callback(MemoryRunsOut())
        else:
            trainer.passes = None
        gpu.release_memory()
        torch.cuda.reset_peak_memory_stats()
        curves.append(losses(trainer))
    assert curves[1] == pytest.approx(curves[0], rel=0.01)
    assert not trainer.passes.on
    assert trainer.budget.tokens < 10**6
