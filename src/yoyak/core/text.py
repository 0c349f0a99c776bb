"""What dialogues and summaries are written in: person tags, letters of other scripts."""

import re
import unicodedata

TAG = re.compile(r"#\w+#")
"""A person tag or a mask: `#Person1#`, `#PhoneNumber#`."""
FOREIGN_WORD = re.compile(r"[^\W\d_\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]+")
"""A word of letters that are not Hangul."""
LETTER_LIKE = re.compile(
    r"[\u2100-\u218f]|°[CF](?![A-Za-z])|[\u3371-\u33df](?:/?[A-Za-z](?![A-Za-z]))?|µ(?:[A-Za-z](?![A-Za-z]))?"
)
"""Signs that Unicode takes for letters, and what belongs to one: `ℓ`, `№`, `Ⅱ`, `㎞/h`, `µm`."""
SYMBOL = re.compile(r"[^\w\s]")
"""Among them `℃`, `㎏` and `Ⓐ`, whose plain form has letters."""


def foreign_words(text: str) -> set[str]:
    """Words in other letters than Hangul, tags aside; full-width letters are plain ones, capitals small,
    and symbols of units such as `℃` no words."""
    # Composed first: the accent of a letter in two parts is no symbol.
    composed = unicodedata.normalize("NFC", LETTER_LIKE.sub(" ", TAG.sub(" ", text)))
    words = unicodedata.normalize("NFKC", SYMBOL.sub(" ", composed))
    return set(FOREIGN_WORD.findall(words.casefold())) - {"person"}
