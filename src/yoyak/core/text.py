"""What dialogues and summaries are written in: person tags, letters of other scripts."""

import re
import unicodedata

TAG = re.compile(r"#\w+#")
"""A person tag or a mask: `#Person1#`, `#PhoneNumber#`."""
FOREIGN_WORD = re.compile(r"[^\W\d_\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]+")
"""Letters that are no Hangul."""


def foreign_words(text: str) -> set[str]:
    """Words in other letters than Hangul, tags aside; full-width letters are plain ones, and capitals small."""
    return set(FOREIGN_WORD.findall(unicodedata.normalize("NFKC", TAG.sub(" ", text)).casefold())) - {"person"}
