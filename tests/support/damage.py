"""Damage that a file may take: cut off, in another encoding, edited by hand, with keys and fields of any type."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from yoyak.core.records import RENAMED

HUGE = "가" * 100_000
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 3.5, 1e308, 10**400, float("nan"), float("inf")),
    *("", " ", "x", "3.5", "dev", "가나", "a\0b", "\ud800", "\u2028", "[bold]", "\x1b[31m", "../../x", "/", HUGE),
    *([], {}, [1], ["x"], [[]], {"x": 1}, {"": None}, {HUGE: 1}, [None, 1], [0.0, 1e300]),
)
DEEP = "[" * 100_000

Change = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def without_a_line(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    del lines[draw.randrange(len(lines))]
    return b"\n".join(lines)


def a_line_twice(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))
    return b"\n".join(lines)


def with_bytes(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    strays = (b"\0", b'"', b"'", b",", b"\n", b"\r", b"{", b"]", b":", b"\\", b"\xff", b"\xed\xa0\x80", b"\x1b", b"\t")
    return content[:place] + draw.choice(strays) + content[place + draw.randrange(2) :]


def with_a_piece_lost(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.randrange(1, 200) :]


def in_another_encoding(content: bytes, draw: random.Random) -> bytes:
    return content.decode().encode(draw.choice(("cp949", "utf-16", "utf-16-le", "utf-8-sig", "utf-32")), "replace")


def nothing(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\n", b" ", b"null", b"[]", b"{}", b"1", b'"x"', DEEP.encode(), b"\xef\xbb\xbf"))


def a_field_replaced(content: bytes, draw: random.Random) -> bytes:
    """Of a CSV, as far as commas part its fields."""
    lines = content.decode().split("\n")
    line = draw.randrange(len(lines))
    fields = lines[line].split(",")
    fields[draw.randrange(len(fields))] = str(draw.choice(VALUES)).encode(errors="ignore").decode()
    lines[line] = ",".join(fields)
    return "\n".join(lines).encode()


TEXT: tuple[Change, ...] = (
    cut,
    without_a_line,
    a_line_twice,
    with_bytes,
    with_a_piece_lost,
    in_another_encoding,
    nothing,
    a_field_replaced,
)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in nested objects and arrays: what holds it, and its key there."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])


def changed(content: Any, draw: random.Random) -> Any:
    """An object with one place in it lost, renamed, or holding something else."""
    outer = [content]
    holder, key = draw.choice(list(_places(outer)))
    how = draw.randrange(4)
    if how == 0 and holder is not outer:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        value = holder.pop(key)
        holder[draw.choice(("x", "", HUGE, "a\0", "[/]", *RENAMED))] = value
    else:
        holder[key] = draw.choice(VALUES)
    return outer[0]


def json_changed(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(changed(json.loads(content), draw)).encode()


def line_changed(content: bytes, draw: random.Random) -> bytes:
    """Of a file with an object a line."""
    lines = content.decode().removesuffix("\n").split("\n")
    line = draw.randrange(len(lines))
    lines[line] = json.dumps(changed(json.loads(lines[line]), draw))
    return "\n".join(lines).encode() + b"\n"


def damaged(content: bytes, kind: str, draw: random.Random) -> bytes:
    """`content`, damaged in one way, or in two; `kind` is json, jsonl, or any other of text."""
    of_kind = {"json": json_changed, "jsonl": line_changed}.get(kind, a_field_replaced)
    result = of_kind(content, draw) if draw.random() < 0.6 else draw.choice(TEXT)(content, draw)
    return draw.choice(TEXT[:-1])(result, draw) if draw.random() < 0.05 and _is_text(result) else result


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
