"""Foreign letters: those of scripts, or of Latin words, that a dialogue lacks; and the tokens that would bring them."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yoyak.core.text import TAG

WORD = re.compile(r"[A-Za-zÀ-ɏ]+|[ㄱ-ㆎ]+")
"""Of Latin letters, or of Korean ones that make no syllable, ㅋㅋ: their first byte begins Kana, too."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SCRIPTS = {
    **{name: name for name in ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "THAI", "DEVANAGARI")},
    "HIRAGANA": "KANA",
    "KATAKANA": "KANA",
    "CJK": "HAN",
    "KANGXI": "HAN",
}
"""By how Unicode's names of their letters begin; all others count as one."""
OTHER = "OTHER"
NUMBERED = sorted({*SCRIPTS.values(), OTHER})
FIRST_OF_SEVERAL = 0xC2
"""The least byte that begins a character of several bytes."""


class ScriptGuard:
    """Made once for a tokenizer; then told, batch by batch, what the dialogues are."""

    def __init__(self, tokenizer: Any, end_ids: list[int], vocabulary: int, device: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        whole, begun = np.zeros(vocabulary, np.int64), np.zeros(vocabulary, np.int64)
        texts: dict[int, str] = {}
        for token_id, token in _token_texts(tokenizer, vocabulary, end_ids):
            try:
                texts[token_id] = token.decode()
            except UnicodeDecodeError:
                whole[token_id], begun[token_id] = map(_bits, scripts_of_token(token))
        whole[list(texts)] = _bits_of_texts(list(texts.values()))
        self._whole, self._begun = torch.from_numpy(whole).to(device), torch.from_numpy(begun).to(device)
        """Of each token, bit by bit: the scripts of its letters, and those that its last bytes may begin one of."""

    def forbidden(self, dialogues: Sequence[str]) -> Any:
        """True where a token must not stand in the dialogue's summary, shape (dialogues, vocabulary)."""
        # Latin is a matter of words: no dialogue has the script as such.
        known = [_bits(_scripts(text) - {"LATIN"}) for text in dialogues]
        of_words = [(row, token) for row, text in enumerate(dialogues) for token in self._tokens_of_words(text)]
        has = torch.tensor(known, device=self._whole.device)[:, None]
        forbidden = ((self._whole & ~has) != 0) | ((self._begun != 0) & ((self._begun & has) == 0))
        if of_words:
            rows, tokens = torch.tensor(of_words, device=forbidden.device).unbind(1)
            forbidden[rows, tokens] = False
        return forbidden

    def _tokens_of_words(self, dialogue: str) -> list[int]:
        """Of such words and of the tags that stand in it."""
        tags = set(TAG.findall(dialogue))
        words = set(WORD.findall(TAG.sub(" ", dialogue)))
        forms = {form for word in words for form in (word, word.lower(), word.upper(), word.capitalize())} | tags
        return [token for form in sorted(forms) for start in ("", " ") for token in self._tokens(start + form)]

    def _tokens(self, text: str) -> list[int]:
        """Kept, for the same tags stand in every dialogue."""
        if text not in self._known:
            self._known[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._known[text]


def _bits(scripts: Iterable[str]) -> int:
    return sum(1 << NUMBERED.index(script) for script in scripts)


def _bits_of_texts(texts: Sequence[str]) -> NDArray[np.int64]:
    """`_bits` of the scripts of each text, shape (texts,): a letter is looked up once, not once a text."""
    # Behind each text a NUL, which is of no script: `reduceat` knows no empty parts.
    letters = np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-32-le"), np.uint32)
    bits = np.zeros(sys.maxunicode + 1, np.int64)
    bits[letters] = 1
    for letter in np.flatnonzero(bits):
        bits[letter] = _bits(_scripts(chr(letter)))
    ends = np.cumsum([len(text) + 1 for text in texts])
    starts = np.concatenate([[0], ends[:-1]])
    return np.bitwise_or.reduceat(bits[letters], starts)


def _scripts(text: str) -> frozenset[str]:
    """Of its letters, Hangul aside."""
    return frozenset(filter(None, map(_script, text)))


@cache
def _script(character: str) -> str | None:
    """Of a letter, or of a mark that only stands by letters of one script, as vowels do."""
    plain = unicodedata.normalize("NFKC", character)[0]
    name = unicodedata.name(plain, "UNNAMED").split()[0].split("-")[0]
    if not unicodedata.category(plain).startswith(("L", "M")) or name in ("HANGUL", "COMBINING", "VARIATION"):
        return None
    return SCRIPTS.get(name, OTHER)


def _token_texts(tokenizer: Any, vocabulary: int, end_ids: list[int]) -> list[tuple[int, bytes]]:
    """Each token but the special ones, and those that end a summary, in the bytes that it stands for."""
    special = {*tokenizer.all_special_ids, *end_ids}
    as_bytes = _byte_level if "ByteLevel" in str(tokenizer.backend_tokenizer.decoder) else _plain
    return [
        (token_id, as_bytes(token))
        for token, token_id in tokenizer.get_vocab().items()
        if token_id not in special and token_id < vocabulary
    ]


def _plain(token: str) -> bytes:
    """A token of characters, or `<0xEA>`, a byte."""
    return bytes([int(token[3:5], 16)]) if BYTE.fullmatch(token) else token.encode()


def _byte_level(token: str) -> bytes:
    """GPT-2 writes each byte as a printable character; an added token is written as it is."""
    try:
        return bytes(map(_bytes_of_characters().__getitem__, token))
    except KeyError:
        return token.encode()


@cache
def _bytes_of_characters() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + place): byte for place, byte in enumerate(others)}}


def scripts_of_token(text: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Of its whole letters; and those of which the letter is that its last bytes begin."""
    begun = _begun(text)
    return _scripts(text.decode("utf-8", errors="ignore")), _scripts_that_begin(begun) if begun else frozenset()


def _length(first_byte: int) -> int:
    """Bytes of a character in UTF-8."""
    return 2 + (first_byte >= 0xE0) + (first_byte >= 0xF0)


def _begun(text: bytes) -> bytes:
    """The first bytes of a character that is not whole at the end of `text`."""
    for length in range(1, min(4, len(text) + 1)):
        end = text[-length:]
        if end[0] >= FIRST_OF_SEVERAL:
            return end if length < _length(end[0]) else b""
    return b""


@cache
def _scripts_that_begin(begun: bytes) -> frozenset[str]:
    """Nothing where a Korean syllable may follow, or most of what may follow is no foreign letter."""
    missing = _length(begun[0]) - len(begun)
    tails = (bytes(tail) for tail in product(range(0x80, 0xC0), repeat=min(missing, 2)))
    texts = ((begun + tail + b"\x80" * (missing - len(tail))).decode("utf-8", errors="ignore") for tail in tails)
    characters = [text for text in texts if text and unicodedata.category(text) != "Cn"]
    scripts = [script for script in map(_script, characters) if script]
    syllables = any("가" <= character <= "힣" for character in characters)
    return frozenset(scripts) if not syllables and 2 * len(scripts) > len(characters) else frozenset()
