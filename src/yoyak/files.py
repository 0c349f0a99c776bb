"""Writing a file whole, or not at all."""

from pathlib import Path

from yoyak.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Whoever is killed over it, or has no room left, finds the old file or the new one; text is UTF-8."""
    half = path.with_name(f"{path.name}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content.encode() if isinstance(content, str) else content)
        half.replace(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; is there room, and may you write there?"
        ) from None
