"""What a run writes and prints names no token of the environment, nobody's home, and not where the project lies."""

from pathlib import Path

from project import Project

NOT_OF_A_RUN = {".git", ".dvc", ".cache", "src", "stages", "twins"}
"""What no run writes, and what stays on the machine."""


def test_a_run_tells_nothing_of_whose_machine_it_was_on(
    reproduced: Project, first_run_told: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    """`reproduced` was run with these in its environment."""
    printed, secrets = first_run_told
    assert {"HF_TOKEN", "HOME"} <= secrets.keys()
    project = reproduced.copy(tmp_path / "project")
    secrets["the copy's folder"] = str(project.root)
    environment = [f"{name}={secret}" for name, secret in secrets.items() if name.isupper()]
    texts = {"dvc repro": printed.encode()}
    for command in ("report", "status", "experiments"):
        texts[command] = project.run("env", *environment, "yoyak", command).stdout.encode()
    texts |= _written(project.root)
    expected = {"report.html", "dvc.lock", "metrics/scores.json", "metrics/train/bart_mini.json"}
    assert expected | {"models/llama32_3b/adapter_config.json", "submission/checklist.md"} <= texts.keys()
    assert b"Running stage 'train@llama32_3b'" in texts["dvc repro"]
    found = [(text, name) for text, content in texts.items() for name in secrets if secrets[name].encode() in content]
    assert found == []


def _written(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and not NOT_OF_A_RUN & {*path.relative_to(root).parts})
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
