"""A prompt in tokens: the chat template, and fitting a dialogue into a model's token budget."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.modeling.chat_template import QUESTION, SYSTEM, ChatTemplate
from yoyak.modeling.control_tokens import ControlTokens
from yoyak.modeling.spec import Persons, PromptForm

PERSON_TAG, SPEAKER = re.compile(r"#Person(\d+)#"), re.compile(r"화자(\d+)")
BEFORE_ANSWER = "\n\n[Answer]\n"
"""What ends a prompt of a model without a chat template."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in tokens."""

    ids: list[int]
    dropped_turns: int
    """Turns left out of the dialogue's middle to fit the budget."""
    cut_inside: bool
    """Whether even single turns had to be cut."""

    @property
    def shortened(self) -> bool:
        return self.dropped_turns > 0 or self.cut_inside


class PromptTokenizer:
    """Turns prompts and summaries into token ids, for training and inference alike.

    Prompt and summary are tokenised apart and joined as ids: what training sees before the first token of the summary
    is, to the token, what inference starts from.
    """

    def __init__(self, tokenizer: Any, form: PromptForm, max_prompt_tokens: int, persons: Persons = "tags") -> None:
        self.tokenizer = tokenizer
        self.form = form
        self.persons = persons
        self.max_prompt_tokens = max_prompt_tokens
        self.template = ChatTemplate(tokenizer) if form == "structured" and tokenizer.chat_template else None
        self.end_id = self.template.end_id() if self.template else int(tokenizer.eos_token_id)
        written = self._with_template(self.template, SYSTEM, QUESTION) if self.template else []
        self.control_tokens = ControlTokens(tokenizer, [*written, self.end_id])
        self._controls_beside = cache(self._count_beside)

    def encode_prompt(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt's tokens, at most `max_prompt_tokens`: turns go from the middle, question and header stay."""
        turns = [self._written(turn) for turn in prompt.turns]
        ids = self._ids(prompt, turns)
        if len(ids) <= self.max_prompt_tokens:
            return EncodedPrompt(ids, 0, cut_inside=False)
        # Halving the range, not dropping a turn at a time, whose tokens would be made anew each time.
        most = max(0, len(turns) - 2)
        dropped = bisect_left(range(most), True, key=lambda number: self._fits(prompt, _without_middle(turns, number)))
        kept = _without_middle(turns, dropped)
        if self._fits(prompt, kept):
            return EncodedPrompt(self._ids(prompt, kept), dropped, cut_inside=False)
        cuts = list(_shorter(kept))
        cut = bisect_left(range(len(cuts)), True, key=lambda number: self._fits(prompt, cuts[number]))
        if cut == len(cuts):
            raise UserError(
                f"{prompt.fname}: nothing of it fits into {self.max_prompt_tokens} tokens; raise max_prompt_tokens"
            )
        return EncodedPrompt(self._ids(prompt, cuts[cut]), dropped, cut_inside=True)

    def _fits(self, prompt: Prompt, kept: list[str]) -> bool:
        return len(self._ids(prompt, kept)) <= self.max_prompt_tokens

    def encode_summary(self, summary: str) -> list[int]:
        """The summary's tokens and the token that ends it."""
        summary = self._written(summary)
        if self.form == "dialogue":
            ids = self._surrounded(summary, "", "text_target")
            return ids if ids and ids[-1] == self.end_id else [*ids, self.end_id]
        return [*self._text(summary), self.end_id]

    def request(self, prompt: Prompt, turns: Sequence[str]) -> str:
        """What a user says for a summary of these `turns`, before the tokenizer's template or `BEFORE_ANSWER`."""
        conversation = "\n".join(map(self._written, turns))
        if self.form == "dialogue":
            return conversation
        return f"[Conversation]\n{conversation}\n\n[Question]\n{prompt.question}"

    def decode(self, summaries: Any) -> list[str]:
        """Summaries from token ids, persons as tags again."""
        texts = self.control_tokens.decode(summaries)
        return [SPEAKER.sub(r"#Person\1#", text) for text in texts] if self.persons == "speakers" else list(texts)

    def _written(self, text: str) -> str:
        return PERSON_TAG.sub(r"화자\1", text) if self.persons == "speakers" else text

    def _ids(self, prompt: Prompt, kept: list[str]) -> list[int]:
        request = self.request(prompt, kept)
        if self.form == "dialogue":
            return self._surrounded(request, "", "text")
        if self.template:
            return self._templated(self.template, prompt.system, request)
        # No system message either: a model without a chat template was never taught what one is.
        return self._surrounded(request, BEFORE_ANSWER, "text")

    def _templated(self, template: ChatTemplate, system: str, request: str) -> list[int]:
        """The chat template's prompt, in which `request` steers nothing."""
        ids = self._with_template(template, system, request)
        if self.control_tokens.count(ids) == self._controls_beside(template, system):
            return ids
        before, _, after = template.prompt(system, QUESTION).partition(QUESTION)
        return self._begun([*self._plain(before), *self.control_tokens.as_text(request), *self._plain(after)])

    def _count_beside(self, template: ChatTemplate, system: str) -> int:
        """Control tokens of a prompt that stand beside what is asked."""
        return self.control_tokens.count(self._with_template(template, system, QUESTION))

    def _with_template(self, template: ChatTemplate, system: str, request: str) -> list[int]:
        return self._begun(self._plain(template.prompt(system, request)))

    def _surrounded(self, text: str, after: str, part: str) -> list[int]:
        """Text, in which nothing steers, in the tokens that the tokenizer sets around a `part`: text or text_target."""
        ids = list(self.tokenizer(**{part: text + after}).input_ids)
        around = list(self.tokenizer(**{part: QUESTION}).input_ids)
        if self.control_tokens.count(ids) == self.control_tokens.count(around):
            return ids
        inner = self._plain(QUESTION)
        start = next(place for place in range(len(around)) if around[place : place + len(inner)] == inner)
        whole = [*self.control_tokens.as_text(text), *self._plain(after)]
        return [*around[:start], *whole, *around[start + len(inner) :]]

    def _text(self, text: str) -> list[int]:
        """Text, in which nothing steers, by itself."""
        ids = self._plain(text)
        return self.control_tokens.as_text(text) if self.control_tokens.count(ids) else ids

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _begun(self, ids: list[int]) -> list[int]:
        """With the tokenizer's begin token, which most templates write themselves; SOLAR's leaves it to the tokenizer,
        which begins every text with it."""
        begin = self.tokenizer.bos_token_id
        missing = begin is not None and ids[:1] != [begin] and list(self.tokenizer("가").input_ids)[:1] == [begin]
        return [begin, *ids] if missing else ids


def _without_middle(turns: Sequence[str], dropped: int) -> list[str]:
    """The turns without the `dropped` ones next to the middle."""
    kept = len(turns) - dropped
    return [*turns[: kept - kept // 2], *turns[len(turns) - kept // 2 :]]


def _shorter(turns: Sequence[str]) -> Iterator[list[str]]:
    """The turns, of which the longest loses its last tenth each time, until none has more than a letter."""
    left = list(turns)
    while len(left[longest := max(range(len(left)), key=lambda turn: len(left[turn]))]) > 1:
        left[longest] = left[longest][: len(left[longest]) * 9 // 10]
        yield list(left)
