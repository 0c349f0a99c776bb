"""Texts into tokens: Korean morpheme analysers by name, each with the version and dictionary that a score must carry.

Of the public analysers only MeCab reproduces the organisers' worked example. The same
summaries score 40.9 by it, 32.9 by Kiwi and 52.5 by characters: scores of different analysers are not comparable.

To MeCab `#Person1#` is five tokens, and stays so, for the competition counts it so. To Kiwi and konlpy's it is one.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

from yoyak.core.errors import UserError
from yoyak.core.text import TAG

Tokenizer = Literal["mecab", "kiwi", "okt", "komoran", "kkma", "char", "whitespace"]
Analyse = Callable[[str], Sequence[str]]


class Packages(NamedTuple):
    """Distributions that an analyser consists of."""

    engine: str
    dictionary: str


PACKAGES: dict[Tokenizer, Packages] = {
    "mecab": Packages("python-mecab-ko", "python-mecab-ko-dic"),
    "kiwi": Packages("kiwipiepy", "kiwipiepy-model"),
    "okt": Packages("konlpy", "konlpy"),
    "komoran": Packages("konlpy", "konlpy"),
    "kkma": Packages("konlpy", "konlpy"),
}
EXTRAS = {"kiwipiepy": "kiwi", "kiwipiepy-model": "kiwi", "konlpy": "konlpy"}
"""Packages that come with an extra of this project alone: `kiwi` for its size, `konlpy` for its licence, the GPL."""

WHOLE_TAG = re.compile(f"({TAG.pattern})")
STAND_INS = ("철수", "홍길동")
"""Names that every analyser knows, one that ends in a vowel and one that ends in a consonant."""
STAND_IN = re.compile("|".join((TAG.pattern, *STAND_INS)))
AFTER_A_CONSONANT = ("은", "이", "을", "과", "으로")


def describe(tokenizer: Tokenizer) -> dict[str, str]:
    """Name, version and dictionary of an analyser, to be given beside every score."""
    if tokenizer not in PACKAGES:
        return {"tokenizer": tokenizer, "tokenizer_version": "", "dictionary": ""}
    packages = PACKAGES[tokenizer]
    return {
        "tokenizer": tokenizer,
        "tokenizer_version": f"{packages.engine} {_version(packages.engine, tokenizer)}",
        "dictionary": f"{packages.dictionary} {_version(packages.dictionary, tokenizer)}",
    }


def require(tokenizer: Tokenizer) -> None:
    """Stop where the analyser cannot run here, before anything is scored."""
    describe(tokenizer)
    _analyser(tokenizer)


@lru_cache(maxsize=2**12)
def morphemes(text: str, tokenizer: Tokenizer = "mecab") -> tuple[str, ...]:
    """The morphemes of a text: `호킨스 의사는` → `호킨스 의사 는`."""
    text = readable(text)
    return tuple(_analyser(tokenizer)(text)) if text.strip() else ()


def readable(text: str) -> str:
    """The text as analysers read it, and as a file in UTF-8 can hold it.

    MeCab stops at NUL, raises on lone surrogates, and knows no Hangul in parts, as macOS writes it.
    """
    return unicodedata.normalize("NFC", text.replace("\0", " ").encode("utf-8", "ignore").decode("utf-8"))


@lru_cache
def _analyser(tokenizer: Tokenizer) -> Analyse:
    match tokenizer:
        case "mecab":
            return _mecab()
        case "kiwi":
            return _kiwi()
        case "char":
            return lambda text: [character for character in text if not character.isspace()]
        case "whitespace":
            return str.split
        case _:
            return _konlpy(tokenizer)


def _mecab() -> Analyse:
    """Surfaces alone: `MeCab.morphs` builds an object of features for each, which takes as long as the analysis."""
    from mecab import MeCab
    from mecab.utils import create_lattice

    tagger = MeCab()._tagger

    def analyse(text: str) -> list[str]:
        lattice = create_lattice(text)
        tagger.parse(lattice)
        *lines, _end, _empty = lattice.to_string().split("\n")
        return [line.split("\t", 1)[0] for line in lines]

    return analyse


def _kiwi() -> Analyse:
    from kiwipiepy import Kiwi

    # One worker: more of them gain nothing on texts this short.
    kiwi = Kiwi(num_workers=1)

    def analyse(text: str) -> list[str]:
        # To Kiwi itself `#Person1#은` is the hashtags `#Person1` and `#은`.
        tags = [(*match.span(), "NNP") for match in TAG.finditer(text)]
        return [token.form for token in kiwi.tokenize(text, pretokenized=tags or None)]

    return analyse


def _konlpy(tokenizer: Tokenizer) -> Analyse:
    from jpype import JVMNotFoundException
    from konlpy import tag

    analysers: dict[str, Any] = {"okt": tag.Okt, "komoran": tag.Komoran, "kkma": tag.Kkma}
    try:
        morphs: Analyse = analysers[tokenizer]().morphs
    except JVMNotFoundException:
        raise UserError(
            f"the tokenizer {tokenizer} runs on Java, and none is installed; `apt install default-jre-headless`, "
            "or take mecab"
        ) from None
    # Komoran and Kkma raise on characters beyond U+FFFF, emoji for one.
    return lambda text: around_tags(re.sub("[^\0-\uffff]", " ", text), morphs)


def around_tags(text: str, analyse: Analyse) -> list[str]:
    """The tokens of a text by an analyser that knows no tags: each tag is one, and what follows it is analysed as what
    follows a name."""
    names = STAND_IN.sub(lambda match: _stand_in(match, text), text)
    tokens = list(analyse(names))
    stood_for = [match[0] for match in STAND_IN.finditer(text)]
    places = [place for place, token in enumerate(tokens) if token in STAND_INS]
    if len(places) != len(stood_for):
        return [token for part in WHOLE_TAG.split(text) for token in ([part] if TAG.fullmatch(part) else analyse(part))]
    for place, tag in zip(places, stood_for, strict=True):
        tokens[place] = tag
    return tokens


def _stand_in(match: re.Match[str], text: str) -> str:
    """A name of such an end as the particle after it asks for: `은` follows a consonant, `는` a vowel."""
    return STAND_INS[text.startswith(AFTER_A_CONSONANT, match.end())] if TAG.fullmatch(match[0]) else match[0]


def _version(package: str, tokenizer: Tokenizer) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        how = f"pip install 'yoyak[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"
        raise UserError(f"the tokenizer {tokenizer} needs the package {package}; `{how}`") from None
