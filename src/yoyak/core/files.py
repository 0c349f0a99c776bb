"""Writing a file whole, or not at all."""

import contextlib
import hashlib
from pathlib import Path

from yoyak.core.errors import UserError


def write_whole(path: Path, text: str) -> None:
    """Whoever is killed over it, or has no room left, finds the old file or the new one."""
    half = path.with_name(f"{path.name}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(text, encoding="utf-8", newline="")
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: cannot be written: {text[error.start]!r} is no character of UTF-8; drop it") from None
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def sha256(path: Path) -> str:
    """Of what a file holds, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
