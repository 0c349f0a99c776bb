"""Memory that runs out is met in one way, the machine's as the GPU's: with less at once, else in one line."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from project import Project

from yoyak.core import gpu
from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.records import read_json

MORE_THAN_ANY = 2**50
"""Bytes that no machine has."""


def _of_the_system() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


REAL: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: torch.empty(MORE_THAN_ANY, dtype=torch.uint8),
    "an array": lambda: np.empty(MORE_THAN_ANY, dtype=np.uint8),
    "Python's own": lambda: bytearray(MORE_THAN_ANY),
    "the system": _of_the_system,
}


@pytest.mark.parametrize("kind", REAL)
def test_memory_that_ran_out_is_known_by_each_library_s_error(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception) as raised:
        REAL[kind]()
    assert gpu.is_oom(raised.value), repr(raised.value)
    assert gpu.memory_of(raised.value) == "memory"

    @exits_with_one_line
    def main() -> None:
        try:
            REAL[kind]()
        except Exception as error:
            raise ValueError("cannot work") from error

    with pytest.raises(SystemExit):
        main()
    wanted = ", 1125899.9 GB more were wanted" if kind == "a tensor" else ""
    assert re.fullmatch(rf"error: out of memory{wanted}; see with `free -h`.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), OSError(errno.ENOENT, "No such file"), ValueError("memory"), KeyboardInterrupt()]
)
def test_another_fault_is_none_of_memory(error: BaseException) -> None:
    assert not gpu.is_oom(error)
    with pytest.raises(type(error)), gpu.oom_in_one_line("a", "b", "c"):
        raise error


def test_a_gpu_s_memory_is_told_as_a_gpu_s() -> None:
    for error in (torch.cuda.OutOfMemoryError("no memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")):
        assert gpu.memory_of(error) == "GPU memory"
        with (
            pytest.raises(UserError, match=r"^a: out of GPU memory; see with `nvidia-smi` who else uses it, or b$"),
            gpu.oom_in_one_line("a", "b", "c"),
        ):
            raise error


SCARCE = """
import resource, runpy, sys
import torch, transformers, transformers.modeling_utils as modeling

def with_none_left(work):
    # The limit holds for the call alone: as if others had taken all memory then.
    def called(*args, **kwargs):
        pages = int(open("/proc/self/statm").read().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
        try:
            return work(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    return called

def too_large_at_first(work):
    calls = []
    def called(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            torch.empty(2**50, dtype=torch.uint8)
        return work(*args, **kwargs)
    return called

moment, *sys.argv = sys.argv[1:]
if moment == "loading":
    modeling.safe_open = with_none_left(modeling.safe_open)
elif moment == "a step":
    transformers.Trainer.training_step = too_large_at_first(transformers.Trainer.training_step)
else:
    transformers.LlamaForCausalLM.forward = too_large_at_first(transformers.LlamaForCausalLM.forward)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A stage on a machine without memory: while weights are loaded, or once, at its first step or its first pass."""


@pytest.fixture(scope="module")
def scarce(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = reproduced.copy(tmp_path_factory.mktemp("scarce") / "project")
    (project.root / "scarce.py").write_text(SCARCE)
    project.edit(lambda params: params["run"].update(tuned=["llama32_3b"]))
    project.stage("prepare_prompts")
    return project


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("llama32_3b", ["train", "llama32_3b"]),
        ("llama32_3b", ["infer", "llama32_3b"]),
        ("bart_mini", ["infer", "bart_mini"]),
        ("llama32_3b_tuned", ["tune", "llama32_3b"]),
    ],
)
def test_weights_that_do_not_fit_end_a_stage_in_one_line(scarce: Project, name: str, stage: list[str]) -> None:
    script, *arguments = stage
    # What the run before has kept would be taken up.
    shutil.rmtree(scarce.root / ".cache", ignore_errors=True)
    done = scarce.run("python", "scarce.py", "loading", f"stages/{script}.py", *arguments, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert re.fullmatch(
        rf"error: {name}: out of memory; see with `free -h`.*, or take a model with fewer parameters",
        done.stdout.splitlines()[-1],
    ), done.stdout


def test_a_stage_goes_on_with_less_at_once(scarce: Project) -> None:
    shutil.rmtree(scarce.root / ".cache", ignore_errors=True)
    record = scarce.root / "metrics/train/llama32_3b.json"
    undisturbed = read_json(record)
    trained = scarce.run("python", "scarce.py", "a step", "stages/train.py", "llama32_3b").stdout
    assert re.search(r"^out of memory: \d+ tokens at once from here, ", trained, re.MULTILINE), trained
    found = read_json(record)
    for key in ("steps", "rows"):
        assert found[key] == undisturbed[key]
    assert found["train_loss"] == pytest.approx(undisturbed["train_loss"], rel=1e-4)
    assert "running out of memory" in found["micro_batch_why"]

    inferred = scarce.run("python", "scarce.py", "a pass", "stages/infer.py", "llama32_3b").stdout
    assert re.search(r"^out of memory: \d+ dialogues together from here, ", inferred, re.MULTILINE), inferred
    assert read_json(scarce.root / "metrics/infer/llama32_3b.json")["test"]["rows"] == 4
    assert "GPU memory" not in trained + inferred
