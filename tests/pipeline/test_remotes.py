"""`dvc push` and `dvc pull` through the servers that teams have: a second clone gets all, and runs nothing."""

import re
from pathlib import Path

from project import Project
from remote_servers import ACCESS_KEY, BUCKET, HOST, SECRET_KEY, s3_server, ssh_server

PUSHED = "predictions/bart_mini/dev.jsonl"


class WithSecrets(Project):
    """As a user who has these variables set."""

    secrets: dict[str, str]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.secrets


def with_secrets(project: Project, **secrets: str) -> WithSecrets:
    theirs = WithSecrets(project.root)
    theirs.secrets = secrets
    return theirs


def pushed(project: Project, url: str, **options: str) -> None:
    """The remote of docs/experiments.md, committed, and everything in it."""
    project.run("dvc", "remote", "add", "--force", "--default", "storage", url)
    for name, value in options.items():
        project.run("dvc", "remote", "modify", "storage", name, value)
    project.commit("a shared remote")
    project.run("dvc", "push")


def assert_nothing_to_run(clone: Project, of: Project) -> None:
    assert (clone.root / PUSHED).read_bytes() == (of.root / PUSHED).read_bytes()
    assert re.findall(r"^Running stage '(.+)':", told := clone.run("dvc", "repro").stdout, re.MULTILINE) == [], told
    assert clone.run("git", "status", "--porcelain").stdout == ""


def test_a_bucket(reproduced: Project, tmp_path: Path) -> None:
    secrets = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    project = with_secrets(reproduced.copy(tmp_path / "project"), **secrets)
    with s3_server(tmp_path / "server") as address:
        pushed(project, f"s3://{BUCKET}/yoyak", endpointurl=address)
        others = {"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        stranger = with_secrets(project.clone(tmp_path / "stranger"), **others)
        assert stranger.run("dvc", "pull", check=False).returncode != 0
        assert not (stranger.root / PUSHED).exists()
        clone = with_secrets(project.clone(tmp_path / "clone"), **secrets)
        clone.run("dvc", "pull")
    assert_nothing_to_run(clone, project)


def test_a_host_that_ssh_reaches(reproduced: Project, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "server") as server:
        project = with_secrets(reproduced.copy(tmp_path / "project"), HOME=str(server.home))
        own_key = ("dvc", "remote", "modify", "--local", "storage", "keyfile", str(server.key))
        project.run(
            "dvc", "remote", "add", "--force", "--default", "storage", f"ssh://tester@{HOST}:{server.port}/yoyak"
        )
        project.run(*own_key)
        project.commit("a shared remote")
        project.run("dvc", "push")
        clone = with_secrets(project.clone(tmp_path / "clone"), HOME=str(server.home))
        clone.run(*own_key)
        clone.run("dvc", "pull")
    assert_nothing_to_run(clone, project)
