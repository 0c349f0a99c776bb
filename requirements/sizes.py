"""What the files of requirements download, in MB, written into sizes.txt: `make lock` runs it after resolving them.

For Linux on x86_64 and Python 3.11. uv knows a file's size from the index.
"""

import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent
UV = Path(sys.executable).with_name("uv")
TORCH_CPU = ("torch==2.13.0+cpu", 191_794_682)
"""Bytes of its wheel for Python 3.11: the index that it comes from is not PyPI, and is not asked."""
FILES = {
    "pipeline": ("uv", "pipeline"),
    "dev": ("lock",),
    "torch-cpu": ("torch-cpu",),
    "torch-cuda": ("torch",),
    "gemma3-270m": ("gemma3-270m",),
}
"""Which files of this folder make a figure; of dev and torch-cuda that alone which pipeline.txt has not."""
HEADER = """\
# MB (10^6 bytes) that are downloaded at most, and the sha256 of the files that say so (sizes.py): by `make lock`.
# Linux on x86_64, Python 3.11. dev and torch-cuda: beside what pipeline has.
"""


def main() -> None:
    pipeline, lock, cuda = bytes_of("pipeline"), bytes_of("lock"), bytes_of("torch")
    requirement, torch_cpu = TORCH_CPU
    if requirement not in (FOLDER / "torch-cpu.txt").read_text():
        raise SystemExit("error: TORCH_CPU of requirements/sizes.py is of another version than torch-cpu.txt")
    sizes = {
        "pipeline": sum(bytes_of("uv").values()) + sum(pipeline.values()),
        "dev": _beyond(lock, pipeline),
        "torch-cpu": torch_cpu,
        "torch-cuda": _beyond(cuda, pipeline),
        "gemma3-270m": sum(bytes_of("gemma3-270m").values()),
    }
    lines = [f"{name} {size / 1e6:.0f} {digest(name)}\n" for name, size in sizes.items()]
    (FOLDER / "sizes.txt").write_text(HEADER + "".join(lines))


def digest(name: str) -> str:
    """By which a test sees that a figure is of the files as they are today."""
    return sha256(b"".join((FOLDER / f"{file}.txt").read_bytes() for file in FILES[name])).hexdigest()


def bytes_of(file: str) -> dict[str, int]:
    """Bytes of each package; of its largest file, where several would do."""
    # What torch.txt has needs further packages; the other files are whole.
    resolved = [] if file == "torch" else ["--no-deps"]
    command = [str(UV), "pip", "compile", str(FOLDER / f"{file}.txt"), *resolved, "--format", "pylock.toml", "--quiet"]
    machine = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "--no-config"]
    pylock = subprocess.run([*command, *machine], check=True, stdout=subprocess.PIPE).stdout.decode()
    packages = tomllib.loads(pylock)["packages"]
    return {each["name"]: max(wheel["size"] for wheel in _files(each)) for each in packages}


def _files(package: dict) -> list[dict]:
    return package.get("wheels") or [package["sdist"]]


def _beyond(sizes: dict[str, int], others: dict[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name not in others)


if __name__ == "__main__":
    main()
