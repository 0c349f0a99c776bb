"""Tokens that steer a model, which no text of a user may become: `<|im_end|>` typed into a dialogue ends no turn."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

DATA_TAG = re.compile(r"#\w+#")
"""Tags of the data, such as `#Person1#`, which people teach their tokenizers as special tokens."""


class ControlTokens:
    """A tokenizer's special tokens, and what others its chat template writes."""

    def __init__(self, tokenizer: Any, written_by_template: Iterable[int]) -> None:
        """`written_by_template` are the ids of a prompt that nobody typed anything into."""
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        special = {*tokenizer.all_special_ids, *(each for each, token in added.items() if token.special)}
        steering = special | {each for each in written_by_template if each in added}
        texts = {each: str(tokenizer.convert_ids_to_tokens(each)) for each in steering}
        self._tags = {each for each, text in texts.items() if DATA_TAG.fullmatch(text)}
        self._left_out = special - self._tags
        # Any letter that a tokenizer does not know becomes the unknown token. Gemma has blank lines among its added
        # tokens, and a single letter cannot be divided.
        unknown = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
        self.ids = {each for each in steering - self._tags - unknown if len(texts[each].strip()) > 1}
        written = sorted((texts[each] for each in self.ids), key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, written))) if written else None

    def count(self, ids: Sequence[int]) -> int:
        """How many of `ids` steer the model."""
        return sum(each in self.ids for each in ids)

    def as_text(self, text: str) -> list[int]:
        """Ids of `text` without any control token: what is written like one is read letter by letter."""
        found = self._written.finditer(text) if self._written else ()
        cuts = [0, *(match.start() + 1 for match in found), len(text)]
        return [each for start, end in pairwise(cuts) for each in self._halved(text[start:end])]

    def decode(self, rows: Any) -> list[str]:
        """A text a row of token ids, without special tokens but with the data's tags, special or not."""
        if not self._tags:
            return list(self.tokenizer.batch_decode(rows, skip_special_tokens=True))
        kept = [[int(each) for each in row if int(each) not in self._left_out] for row in rows]
        return list(self.tokenizer.batch_decode(kept, skip_special_tokens=False))

    def _halved(self, text: str) -> list[int]:
        """The ids of `text`, cut in halves until no part has a control token.

        Some tokenizers find theirs in what they make of a text, too: in small letters, or of other width.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        if len(text) < 2 or not self.count(ids):
            return ids
        return self._halved(text[: len(text) // 2]) + self._halved(text[len(text) // 2 :])
