"""What a model's files tell before its weights are downloaded: one line, or a model that trains."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from local_hub import serve_hub
from project import ROOT, Project
from prompts import PROMPT
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig
from twins import Family, save_twin

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.modeling import weights
from yoyak.modeling.loading import pretrained, read_tokenizer
from yoyak.preflight.check import read_params
from yoyak.preflight.check_files import check_files
from yoyak.preflight.resolve import resolve

PARAMS = read_params(ROOT / "params.yaml")
WHERE = "models.mine.weights: "


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twins by family, for copies."""
    folder = tmp_path_factory.mktemp("saved")
    families = (twins.llama32, twins.qwen25, twins.gemma3, twins.bart)
    return {family.__name__: save_twin(family, folder / family.__name__) for family in families}


@pytest.fixture
def twin(saved: dict[str, Path], tmp_path: Path) -> Callable[[Family], Path]:
    """A copy of a twin, to be spoilt."""

    def copied(family: Family) -> Path:
        folder = tmp_path / "twin"
        folder.mkdir()
        for path in saved[family.__name__].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copied


def looked_at(folder: Path | str, *prompts: Prompt, tuned: bool = False, **entry: Any) -> None:
    """As the first stage looks at an entry with these weights."""
    whole = {"weights": str(folder), "method": "lora", "dtype": "bf16", "prompt": "structured", **entry}
    params = PARAMS.model_copy(update={"models": {"mine": whole}})
    pin = weights.pin(str(folder), "models.mine.weights")
    check_files({"mine": resolve(params, "mine", pin)}, prompts or [PROMPT], ["mine"] if tuned else [])


def put(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file, or take them away where the value is None."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: put(folder / "config.json", **changes)


def added(token: str, **roles: str) -> Callable[[Path], None]:
    """A token with an id behind all embeddings, as after `add_tokens` without a resize."""

    def add(folder: Path) -> None:
        tokenizer = read_tokenizer(folder, folder)
        spare = LlamaConfig.from_pretrained(folder).vocab_size - len(tokenizer)
        tokenizer.add_tokens([f"[unused{number}]" for number in range(spare)])
        tokenizer.add_tokens([token], special_tokens=bool(roles))
        for role, text in roles.items():
            setattr(tokenizer, role, text)
        tokenizer.save_pretrained(folder)

    return add


OWN_CODE = {"auto_map": {"AutoConfig": "configuration_exaone.ExaoneConfig"}}
FULL = {"method": "full", "prompt": "dialogue"}
REFUSED: dict[str, tuple[Family, Callable[[Path], Any], dict[str, Any], str]] = {
    "code of its own": (
        twins.llama32,
        config(model_type="exaone", **OWN_CODE),
        {},
        r"config.json has model_type 'exaone', which transformers [\d.]+ does not know, and code of its own "
        r"\(auto_map\), which is never run; name a model of a class that it has",
    ),
    "newer than transformers": (twins.llama32, config(model_type="llama9"), {}, r"'llama9', which .* not know; name"),
    "GPTQ": (
        twins.llama32,
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        {},
        r"its weights are quantised already \(config.json: quantization_config: gptq\); name the repository that has",
    ),
    "FP8": (twins.llama32, config(quantization_config={"quant_method": "fp8"}), {}, "quantised already .*: fp8"),
    "an encoder": (
        twins.llama32,
        config(model_type="bert", architectures=["BertForMaskedLM"]),
        {},
        "config.json has model_type: bert, which only fills gaps in a text; name a model that writes",
    ),
    "pictures": (
        twins.llama32,
        config(model_type="qwen2_5_vl"),
        {},
        "qwen2_5_vl, which is no model of texts",
    ),
    "sound": (
        twins.llama32,
        config(model_type="whisper", is_encoder_decoder=True),
        {},
        "model_type: whisper, which is no",
    ),
    "a classifier": (
        twins.llama32,
        config(architectures=["LlamaForSequenceClassification"]),
        {},
        "config.json has architectures: LlamaForSequenceClassification, which writes no text; name its base",
    ),
    "an encoder-decoder with adapters": (twins.bart, config(), {}, "is an encoder-decoder: its entry .* method: full"),
    "a decoder without": (twins.llama32, config(), FULL, "is decoder-only: its entry of models needs method: lora"),
    "a configuration of nonsense": (
        twins.llama32,
        config(num_attention_heads="many"),
        {},
        r"transformers cannot read it \(\w+: .*; mend it",
    ),
    "a tokenizer of nonsense": (
        twins.llama32,
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        {},
        "cannot (be )?read",
    ),
    "no end token": (
        twins.qwen25,
        lambda folder: (put(folder / "tokenizer_config.json", eos_token=None), config(eos_token_id=None)(folder)),
        {},
        r"neither its tokenizer nor its config.json names an end token \(eos_token\)",
    ),
    "a template that takes nothing": (
        twins.llama32,
        lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}"),
        {},
        "its chat template takes no question of a user",
    ),
    "templates without a default": (
        twins.llama32,
        lambda folder: (
            (folder / "chat_template.jinja").unlink(),
            put(folder / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "x"}]),
        ),
        {},
        r"of its chat templates \(rag\) none is named default",
    ),
    "a token of the dialogues": (
        twins.llama32,
        added("#Person1#"),
        {},
        r"its tokenizer has (\d+) tokens, '#Person1#' among them, but the model (\d+) embeddings \(config.json: vocab",
    ),
    "an end token": (twins.llama32, added("<|end|>", eos_token="<|end|>"), {}, r"tokens, '<\|end\|>' among them, but"),
    "a tag that no dialogue has yet": (
        twins.llama32,
        added("#Person99#"),
        {},
        r"its tokenizer has \d+ tokens, '#Person99#' among them, but the model \d+ embeddings",
    ),
    "another model's tokenizer": (twins.llama32, config(vocab_size=500), {}, "tokens, .* but the model 500 embeddings"),
}


@pytest.mark.parametrize("family", ["granite", "cohere", "mistral"])
def test_what_tuning_would_compute_otherwise_is_not_tuned(twin: Callable[[Family], Path], family: str) -> None:
    """Their logits are scaled, or their layers have a window that no `layer_types` tells of."""
    folder = twin(twins.llama32)
    looked_at(folder, tuned=True)
    put(folder / "config.json", model_type=family, architectures=None, rope_scaling=None, rope_parameters=None)
    looked_at(folder)
    with pytest.raises(UserError, match=f"^params.yaml: run.tuned: mine has model_type {family} "):
        looked_at(folder, tuned=True)


@pytest.mark.parametrize(("family", "spoil", "entry", "says"), REFUSED.values(), ids=REFUSED)
def test_what_would_stop_later_is_told_in_one_line(
    twin: Callable[[Family], Path], family: Family, spoil: Callable[[Path], Any], entry: dict[str, Any], says: str
) -> None:
    folder = twin(family)
    spoil(folder)
    with pytest.raises(UserError) as told:
        looked_at(folder, **entry)
    message = str(told.value)
    assert re.match(rf"{re.escape(WHERE + str(folder))}:? .*{says}", message), message
    assert len(message.splitlines()) == 1
    assert len(message) < 500


@pytest.mark.parametrize(
    ("family", "entry"), [(twins.llama32, {}), (twins.bart, FULL)], ids=lambda family: getattr(family, "__name__", "")
)
def test_a_text_that_is_longer_than_the_models_positions(
    twin: Callable[[Family], Path], family: Family, entry: dict[str, Any]
) -> None:
    folder = twin(family)
    put(folder / "config.json", max_position_embeddings=1023 if entry else 1200)
    says = rf"models.mine: max_prompt_tokens is 1024 and generation.max_new_tokens 512, but {folder} has 1\d+ positions"
    with pytest.raises(UserError, match=says):
        looked_at(folder, **entry)
    looked_at(folder, max_prompt_tokens=600, **entry)


# What looks odd and is good


def test_a_token_without_an_embedding_that_no_text_has(twin: Callable[[Family], Path]) -> None:
    """As Gemma 3's token of pictures; and a pad token, in whose place the end token pads."""
    folder = twin(twins.gemma3)
    added("<image_soft_token>")(folder)
    looked_at(folder)
    added("[PAD]", pad_token="[PAD]")(folder)
    looked_at(folder)
    tokenizer = read_tokenizer(folder, folder)
    assert tokenizer.pad_token == tokenizer.eos_token


OLDER = {
    "torch_dtype": "float16",
    "dtype": None,
    "rope_theta": 500000.0,
    "rope_parameters": None,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "transformers_version": "4.31.0",
    **OWN_CODE,
}
"""Keys of configurations of older versions; and code of a class that transformers has by now is not needed."""


def test_older_keys_of_a_configuration_mean_what_they_meant(twin: Callable[[Family], Path]) -> None:
    folder = twin(twins.llama32)
    ids = torch.arange(20)[None]
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}
    put(folder / "config.json", rope_parameters=rope)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        put(folder / "config.json", **OLDER)
        looked_at(folder)
        torch.testing.assert_close(pretrained(folder, dtype=torch.float32)(ids).logits, expected)


# Weights that are not all there


def test_weights_without_an_output_head_are_told(twin: Callable[[Family], Path]) -> None:
    """transformers would make a random one."""
    folder = twin(twins.llama32)
    put(folder / "config.json", tie_word_embeddings=False)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(UserError, match=r"its weights lack lm_head.weight, which a LlamaForCausalLM has"):
        pretrained(folder)


def test_weights_without_a_layer_are_told(twin: Callable[[Family], Path]) -> None:
    folder = twin(twins.llama32)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"its weights lack model.layers.1.mlp.down_proj.weight and 2 others, which a"):
        pretrained(folder)


def test_an_output_head_that_is_the_embeddings_is_not_missed(twin: Callable[[Family], Path]) -> None:
    """koBART's configuration names `BartModel`."""
    folder = twin(twins.bart)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BartModel"]
    looked_at(folder, **FULL)
    pretrained(folder)


# Pickled weights in a local folder


def pickle(folder: Path, parts: int = 1) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if parts == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names = [f"pytorch_model-{part + 1:05}-of-{parts:05}.bin" for part in range(parts)]
    of = {key: names[place % parts] for place, key in enumerate(tensors)}
    for name in names:
        torch.save({key: tensor for key, tensor in tensors.items() if of[key] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))


@pytest.mark.parametrize("parts", [1, 2])
def test_pickled_weights_of_a_folder_are_converted(
    twin: Callable[[Family], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parts: int
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = twin(twins.bart)
    tensors = load_file(folder / "model.safetensors")
    pickle(folder, parts)
    looked_at(folder, **FULL)
    pin = weights.pin(str(folder), "models.mine.weights")
    assert weights.to_write_gb(str(folder), pin) > 0
    converted = weights.fetch(str(folder), pin)
    again = load_file(converted / "model.safetensors")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())
    kept = {path.name for path in folder.iterdir() if "pytorch_model" not in path.name}
    assert {path.name for path in converted.iterdir()} == {*kept, "model.safetensors"}
    assert weights.fetch(str(folder), pin) == converted
    assert weights.to_write_gb(str(folder), pin) == 0
    with next(folder.glob("*.bin")).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="has changed since the preflight"):
        weights.fetch(str(folder), pin)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: torch.save({"a": Evil()}, path), "its pickled weights cannot be read .*; save the model as safe"),
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), "its pickled weights cannot be read"),
        (lambda path: path.write_bytes(b""), "pytorch_model.bin is damaged .it does not begin as PyTorch writes"),
        (lambda path: (path.unlink(), path.with_name("training_args.bin").touch()), "safetensors is missing"),
    ],
    ids=["code", "cut", "empty", "no weights"],
)
def test_pickles_that_hold_no_weights(
    twin: Callable[[Family], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    says: str,
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = twin(twins.bart)
    pickle(folder)
    spoil(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=says):
        weights.fetch(str(folder), weights.pin(str(folder), "models.mine.weights"))
    assert not Path("touched").exists()
    assert not list(tmp_path.glob(".cache/weights/twin-????????????"))


def test_a_pickle_beside_safetensors_of_another_name_is_never_read(twin: Callable[[Family], Path]) -> None:
    folder = twin(twins.llama32)
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    line = r"twin: model.safetensors is missing \(transformers does not load consolidated.safetensors\); give"
    with pytest.raises(UserError, match=line):
        looked_at(folder)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        pretrained(folder)
    assert not Path("touched").exists()


# Code of a model's own


@pytest.mark.parametrize("model_type", ["llama", "mine"])
def test_no_code_of_a_model_is_run_whatever_is_answered(
    twin: Callable[[Family], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """Transformers would ask standard input, which may be a pipe that says yes."""
    folder = twin(twins.llama32)
    (folder / "own.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
    )
    of_model = {"AutoConfig": "own.LlamaConfig", "AutoModelForCausalLM": "own.LlamaForCausalLM"}
    config(model_type=model_type, auto_map=of_model)(folder)
    of_tokenizer = {"AutoTokenizer": [None, "own.PreTrainedTokenizerFast"]}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer | {"auto_map": of_tokenizer, "tokenizer_class": "Mine"})
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    if model_type == "llama":
        looked_at(folder)
        pretrained(folder)
        read_tokenizer(folder, folder)
    else:
        with pytest.raises(UserError, match=r"code of its own \(auto_map\), which is never run"):
            looked_at(folder)
        with pytest.raises(ValueError, match="trust_remote_code"):
            pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises((ValueError, OSError)):
        read_tokenizer(folder, folder)
    assert not (tmp_path / "ran").exists()
    assert sys.stdin.read(2) == "y\n"


# From the hub, before anything large is downloaded

ON_THE_HUB: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code of its own": (
        config(model_type="exaone", **OWN_CODE),
        "config.json has model_type 'exaone', which transformers",
    ),
    "templates without a default": (
        lambda folder: (
            (folder / "chat_template.jinja").unlink(),
            put(folder / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "x"}]),
        ),
        "of its chat templates (rag) none is named default",
    ),
    "a tokenizer that is too long": (added("#Person1#"), "tokens, '#Person1#' among them, but the model"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "*.safetensors is missing; name a model"),
    "a part missing": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors"),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2-of-2.safetensors"}}'),
        ),
        "model-2-of-2.safetensors is missing",
    ),
    "adapters": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "config.json is missing (these are adapters; name the model they were trained on)",
    ),
}


@pytest.mark.parametrize(("spoil", "says"), ON_THE_HUB.values(), ids=ON_THE_HUB)
def test_nothing_large_is_downloaded_of_what_cannot_be_used(
    twin: Callable[[Family], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], Any],
    says: str,
) -> None:
    folder = twin(twins.llama32)
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with serve_hub("some/model", folder) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        with pytest.raises(UserError, match=rf"^{WHERE}some/model: .*{re.escape(says)}"):
            looked_at("some/model")
    assert not list(tmp_path.glob("hf/**/*.safetensors"))


def run(project: Project, address: str, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    hub = (f"HF_ENDPOINT={address}", f"HF_HOME={project.root.parent / 'hf'}", "HF_HUB_OFFLINE=0")
    return project.run("env", *hub, "python", f"stages/{stage}.py", *arguments, check=False)


def test_the_first_stage_tells_before_the_download(project: Project, twin: Callable[[Family], Path]) -> None:
    folder = twin(twins.llama32)
    config(model_type="exaone", **OWN_CODE)(folder)
    project.edit(lambda params: params["models"]["llama32_3b"].update(weights="some/model"))
    with serve_hub("some/model", folder) as address:
        done = run(project, address, "prepare_prompts")
    assert done.returncode == 1
    assert done.stdout.startswith("error: models.llama32_3b.weights: some/model: config.json has model_type 'exaone'")
    assert done.stdout.count("\n") == 1
    assert not list(project.root.parent.glob("hf/**/*.safetensors"))
    assert not (project.root / "data/resolved").exists()


def test_what_is_there_for_other_programs_is_not_downloaded(project: Project, twin: Callable[[Family], Path]) -> None:
    folder = twin(twins.llama32)
    (folder / "consolidated.safetensors").write_bytes(b"x" * 9999)
    project.edit(lambda params: params["models"]["llama32_3b"].update(weights="some/model"))
    with serve_hub("some/model", folder) as address:
        for stage in (("prepare_prompts",), ("train", "llama32_3b")):
            done = run(project, address, *stage)
            assert done.returncode == 0, done.stdout
    assert {path.name for path in project.root.parent.glob("hf/**/*.safetensors")} == {"model.safetensors"}
