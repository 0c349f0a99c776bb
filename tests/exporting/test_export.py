"""`yoyak export`: what is written is the model that was trained, loads elsewhere, and says so; or it is not written."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import write_other_weights
from huggingface_hub import ModelCard
from local_hub import serve_hub, serve_uploads
from project import Project
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml, write_yaml
from yoyak.core.records import read_json
from yoyak.exporting import conversation, folder, licences, parity, plain, trained
from yoyak.exporting.measured import Kind
from yoyak.exporting.run import Options, export
from yoyak.preflight.check import read_params

LICENSE = ("--license", "llama3.2")
GIVEN = Options(rows=0, licence="llama3.2", data_licence=None, quantized=None, repository=None)


@pytest.fixture(scope="module")
def exported(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With each kind of export, as a user types them."""
    project = reproduced.copy(tmp_path_factory.mktemp("exported") / "project")
    project.told = [  # type: ignore[attr-defined]
        project.run("yoyak", "export", "llama32_3b", "--to", "adapter", *LICENSE).stdout,
        project.run("yoyak", "export", "llama32_3b", "--to", "hf", *LICENSE).stdout,
        project.run("yoyak", "export", "bart_mini", "--to", "hf").stdout,
    ]
    return project


@pytest.fixture
def here(reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With adapters so large that the model writes more than blanks, and other words for each dialogue."""
    project = reproduced.copy(tmp_path / "project")
    path = project.root / "models/llama32_3b/adapter_model.safetensors"
    torch.manual_seed(0)
    factors = {name: torch.randn_like(weight) * 0.3 for name, weight in load_file(path).items()}
    path.unlink()
    save_file(factors, path)
    monkeypatch.chdir(project.root)
    return project.root


def in_bf16(root: Path) -> None:
    """As if the adapters were of an entry in 16 bits."""
    path = root / "data/resolved/llama32_3b/generation.yaml"
    content = read_yaml(path)
    content["model"]["dtype"] = "bf16"
    write_yaml(path, content)


NAMES = {"llama32_3b-adapter", "llama32_3b-hf", "bart_mini-hf"}


def test_three_exports_are_the_pipeline_s_models(exported: Project) -> None:
    assert {path.name for path in (exported.root / "export").iterdir()} == NAMES
    for name, told in zip(("llama32_3b-adapter", "llama32_3b-hf", "bart_mini-hf"), exported.told, strict=True):  # type: ignore[attr-defined]
        report = read_json(exported.root / f"export/{name}/parity.json")
        assert report["rows"] == 4
        assert report["checks"][0] == "100.0 % of the greedy summaries in fp32 are the pipeline's to the letter"
        first, *others = (row["loss"] for row in report["models"])
        assert others == pytest.approx([first] * len(others), abs=1e-4)
        assert f"exported: export/{name}" in told


def test_adapters_name_base_and_revision(exported: Project) -> None:
    config = read_json(exported.root / "export/llama32_3b-adapter/adapter_config.json")
    pin = read_yaml(exported.root / "data/resolved/llama32_3b/training.yaml")["model"]["pin"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("./twins/llama32_3b", pin)


def test_the_generation_config_says_what_is_searched(exported: Project) -> None:
    sampled = read_json(exported.root / "export/llama32_3b-hf/generation_config.json")
    assert sampled | {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12} == sampled
    beams = read_json(exported.root / "export/bart_mini-hf/generation_config.json")
    assert beams | {"num_beams": 4, "max_new_tokens": 12} == beams


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_card_s_code_runs_without_this_library(name: str, exported: Project) -> None:
    card = (exported.root / f"export/{name}/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    blocked = "import sys\nsys.modules['yoyak'] = None\nimport torch\ntorch.manual_seed(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=exported.root,
        env=exported.environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_card_has_scores_licences_and_prompt(name: str, exported: Project) -> None:
    path = exported.root / f"export/{name}/README.md"
    card = ModelCard.load(path, ignore_metadata_errors=False)
    model = name.rpartition("-")[0]
    entry = read_json(exported.root / "metrics/scores.json")["models"][model]
    assert [result.metric_value for result in card.data.eval_results] == [
        entry["rouge1"],
        entry["rouge2"],
        entry["rougeL"],
    ]
    assert all("mecab (python-mecab-ko 1.3.7)" in result.metric_name for result in card.data.eval_results)
    low, high = entry["ci95"]
    assert f"**{entry['rouge_mean']}** [{low}, {high}]" in card.text
    assert card.data.license == ("llama3.2" if model == "llama32_3b" else "cc0-1.0")
    assert "Data: `cc0-1.0`" in card.text
    assert ("위 대화를 요약해주세요." in card.text) == (model == "llama32_3b")
    assert str(exported.root) not in card.text


def test_scores_of_another_model_are_not_on_the_card(here: Path) -> None:
    export("llama32_3b", "adapter", GIVEN)
    text = (here / "export/llama32_3b-adapter/README.md").read_text(encoding="utf-8")
    assert "None of the pipeline: infer@llama32_3b, score would run anew" in text
    assert "model-index" not in text


# In 16 bits


def test_a_t5_is_the_same_to_older_transformers(tmp_path: Path) -> None:
    """They know by `tie_word_embeddings` alone that its last layer is its own and unscaled; newer ones read it, too."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 50}
    model = T5ForConditionalGeneration(T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 32))
    folder.write_weights(tmp_path, model)
    assert read_json(tmp_path / "config.json")["tie_word_embeddings"] is False
    read = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(read.lm_head.weight, model.lm_head.weight)
    assert read.config.scale_decoder_outputs is False


@pytest.mark.usefixtures("dtypes_as_asked")
def test_weights_are_merged_as_the_pipeline_merges_them(here: Path) -> None:
    in_bf16(here)
    made = export("llama32_3b", "hf", GIVEN)
    written = AutoModelForCausalLM.from_pretrained(made.folder, dtype="auto").state_dict()
    pipeline = trained.load(trained.find(read_params(Path("params.yaml")), "llama32_3b"), "bf16").model.state_dict()
    assert {weight.dtype for weight in written.values()} == {torch.bfloat16}
    assert [name for name, weight in pipeline.items() if not torch.equal(weight, written[name])] == []
    whats = [row["what"] for row in made.parity["models"]]
    assert whats == [
        "as trained, in fp32",
        "rounded to bf16, computed in fp32",
        "exported, in fp32",
        "the pipeline's, in bf16",
        "exported, in bf16",
    ]
    losses = [row["loss"] for row in made.parity["models"]]
    assert losses[1] != losses[0]
    assert losses[2] == losses[1]
    assert losses[4] == losses[3]
    assert any(check.startswith("what rounding costs: ") for check in made.parity["checks"])
    assert any(
        check.startswith("exported against the pipeline's, in bf16: +0.0000 nats") for check in made.parity["checks"]
    )


@pytest.mark.usefixtures("dtypes_as_asked")
def test_adapters_in_16_bits_are_compared_with_the_merged_model(here: Path) -> None:
    in_bf16(here)
    made = export("llama32_3b", "adapter", GIVEN)
    assert [row["what"] for row in made.parity["models"]][-2:] == ["the pipeline's, in bf16", "exported, in bf16"]


def test_where_16_bits_are_slow_they_are_not_compared(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yoyak.modeling import precision

    in_bf16(here)
    fp32 = precision.Precision("fp32", precision.FP32_FOR_BF16)
    monkeypatch.setattr(precision, "choose", lambda asked: fp32)
    made = export("llama32_3b", "hf", GIVEN)
    assert f"not compared in bf16: {precision.FP32_FOR_BF16}" in made.parity["checks"]
    assert load_file(made.folder / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


# Exports that would lie


def _other_template(monkeypatch: pytest.MonkeyPatch) -> None:
    as_trained = conversation._as_trained
    monkeypatch.setattr(conversation, "_as_trained", lambda *of: as_trained(*of).replace("26 Jul 2024", "27 Jul 2024"))


def _other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    load = plain.load

    def endless(*of: Any) -> Any:
        model, tokenizer = load(*of)
        model.generation_config.eos_token_id = list(range(0, 2000, 2))
        return model, tokenizer

    monkeypatch.setattr(plain, "load", endless)


LIES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "other weights": (write_other_weights, "of the exported model's greedy summaries in fp32 are the pipeline's"),
    "another template": (_other_template, "make other tokens of it than the pipeline"),
    "another end": (_other_end, "of the exported model's greedy summaries in fp32 are the pipeline's"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_export_cannot_lie(lie: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here / "export/llama32_3b-hf/README.md"
    before.parent.mkdir(parents=True)
    before.write_text("an older export")
    change, message = LIES[lie]
    change(monkeypatch)
    with pytest.raises(UserError, match=message):
        export("llama32_3b", "hf", GIVEN)
    assert [path.name for path in (here / "export").iterdir()] == ["llama32_3b-hf"]
    assert before.read_text() == "an older export"


def test_a_difference_that_is_no_chance_stops_an_export() -> None:
    parity.check_rouge("a", {"rouge_mean": 0.1, "noise": False, "p": 0.001}, "in bf16")
    parity.check_rouge("a", {"rouge_mean": -0.4, "noise": True, "p": 0.4}, "in bf16")
    with pytest.raises(UserError, match=r"a: in bf16 the exported model's ROUGE is -0\.40"):
        parity.check_rouge("a", {"rouge_mean": -0.4, "noise": False, "p": 0.001}, "in bf16")
    with pytest.raises(UserError, match="another loss"):
        parity.check_loss("a", 0.002)


# What cannot be exported


WRONG: dict[str, tuple[str, Kind, Options, str]] = {
    "no such model": ("qwen", "hf", GIVEN, "no model 'qwen' in params.yaml; there are gemma3_270m"),
    "not trained": (
        "qwen3_4b",
        "hf",
        GIVEN,
        "qwen3_4b is not here (data/resolved/qwen3_4b/generation.yaml is missing); put it into `run` of params.yaml",
    ),
    "no adapters": ("bart_mini", "adapter", GIVEN, "bart_mini has no adapters (method: full): --to hf"),
    "no GGUF of BART": ("bart_mini", "gguf", GIVEN, "bart_mini is an encoder-decoder"),
    "no converter": ("llama32_3b", "gguf", GIVEN, "`make llama-cpp` fetches llama.cpp's converter"),
    "no licence": ("llama32_3b", "hf", GIVEN._replace(licence=None), "./twins/llama32_3b: its licence is not known"),
    "a sentence": (
        "llama32_3b",
        "hf",
        GIVEN._replace(licence="mine, all"),
        "--license mine, all: a licence is written",
    ),
    "no token": ("llama32_3b", "hf", GIVEN._replace(repository="team/a"), "no token of the hub is here"),
    "no name": ("llama32_3b", "hf", GIVEN._replace(repository="a/b/c"), "--push a/b/c: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_exported(case: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    name, kind, options, message = WRONG[case]
    with pytest.raises(UserError) as told:
        export(name, kind, options)
    assert message in str(told.value)
    assert not (here / "export").exists()


def test_data_of_others_need_a_licence() -> None:
    assert licences.of_data("data/sample", None) == "cc0-1.0"
    with pytest.raises(UserError, match="data/raw: its licence is not known"):
        licences.of_data("data/raw", None)
    assert licences.of_data("data/raw", "cc-by-nc-sa-4.0") == "cc-by-nc-sa-4.0"


# The hub


def on_the_hub(address: str, code: str, token: str = "hf_ofATester") -> str:
    """What Python code prints that has this hub: the client reads its address as it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **Project(Path.cwd()).environment(),
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    return done.stdout + done.stderr


PUSH = (
    "from pathlib import Path; from yoyak.exporting.push import push; print(push(Path({folder!r}), 'team/summaries'))"
)


def test_a_push_brings_all_files(exported: Project, tmp_path: Path) -> None:
    source = exported.root / "export/llama32_3b-adapter"
    with serve_uploads(tmp_path) as address:
        told = on_the_hub(address, PUSH.format(folder=str(source)))
    assert f"{address}/team/summaries/commit/" in told
    there = {path.name: path.read_bytes() for path in (tmp_path / "team/summaries").iterdir()}
    assert there == {path.name: path.read_bytes() for path in source.iterdir()}
    assert json.loads((tmp_path / "team/summaries.created.json").read_text())["visibility"] == "private"


@pytest.mark.parametrize(
    ("token", "refuses", "message"),
    [("hf_ofATester", True, '"license" must be one of'), ("hf_ofAnother", False, "401")],
    ids=["the hub refuses the card", "a token of nobody"],
)
def test_a_push_that_is_refused(token: str, refuses: bool, message: str, exported: Project, tmp_path: Path) -> None:
    source = str(exported.root / "export/llama32_3b-adapter")
    with serve_uploads(tmp_path, refuses) as address:
        told = on_the_hub(address, PUSH.format(folder=source), token)
    assert "yoyak.core.errors.UserError: team/summaries: the hub refuses it" in told
    assert message in told
    assert f"{source} is whole" in told
    assert not list((tmp_path / "team/summaries").glob("*"))


def test_the_base_s_licence_is_read_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code = "from yoyak.exporting import licences; print(licences.of_base('some/model', 'main', None, 'cc0-1.0'))"
    with serve_hub("some/model", tmp_path, licence="apache-2.0") as address:
        assert on_the_hub(address, code) == "apache-2.0\n"
    with serve_hub("some/model", tmp_path) as address:
        assert "some/model: its licence is not known" in on_the_hub(address, code)
