"""`yoyak summarize`, typed."""

import subprocess

from project import Project

DIALOGUE = "#Person1#: 내일 같이 등산 갈래?\n#Person2#: 좋아, 아침 일곱 시에 역에서 보자.\n"


def summarize(project: Project, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """As a user types it; with the threads of the stages, so that sums are rounded as theirs are."""
    return subprocess.run(
        [project.program("yoyak"), "summarize", *arguments],
        cwd=project.root,
        env=project.environment(),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
