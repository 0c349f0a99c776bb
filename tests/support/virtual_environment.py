"""A virtual environment for a test project, with what the tests' own has."""

import os
import sys
import sysconfig
import venv
from pathlib import Path

import warm_python


def virtual_environment(folder: Path) -> None:
    """With the packages and the programs of this one, and for stages the `python` that is warm already."""
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "here.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for program in Path(sys.executable).parent.iterdir():
        if not (folder / "bin" / program.name).exists():
            (folder / "bin" / program.name).symlink_to(program)
    python, warm = folder / "bin/python", Path(os.environ[warm_python.SOCKET]).parent / "bin/python"
    # It is warm for the environment alone in which it was started.
    as_it_was = "env -u CUDA_VISIBLE_DEVICES -u TORCHINDUCTOR_COMPILE_THREADS OMP_NUM_THREADS=1"
    python.unlink()
    python.write_text(
        f'#!/bin/sh\ncase "$1" in stages/*) exec {as_it_was} {warm} "$@" ;; *) exec {python}3 "$@" ;; esac\n'
    )
    python.chmod(0o755)
