"""A prompt in tokens: the chat template, and fitting a dialogue into a model's token budget."""

import re
from dataclasses import dataclass
from typing import Any

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.modeling.chat_template import ChatTemplate
from yoyak.modeling.spec import Persons, PromptForm

PERSON_TAG, SPEAKER = re.compile(r"#Person(\d+)#"), re.compile(r"화자(\d+)")


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

    def encode_prompt(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt's tokens, at most `max_prompt_tokens`: turns go from the middle, question and header stay."""
        kept = [self._written(turn) for turn in prompt.turns]
        ids = self._ids(prompt, kept)
        while len(ids) > self.max_prompt_tokens and len(kept) > 2:
            del kept[len(kept) // 2]
            ids = self._ids(prompt, kept)
        cut_inside = len(ids) > self.max_prompt_tokens
        while len(ids) > self.max_prompt_tokens:
            longest = max(range(len(kept)), key=lambda turn: len(kept[turn]))
            if len(kept[longest]) < 2:
                raise UserError(
                    f"{prompt.fname}: nothing of it fits into {self.max_prompt_tokens} tokens; raise max_prompt_tokens"
                )
            kept[longest] = kept[longest][: len(kept[longest]) * 9 // 10]
            ids = self._ids(prompt, kept)
        return EncodedPrompt(ids, len(prompt.turns) - len(kept), cut_inside)

    def encode_summary(self, summary: str) -> list[int]:
        """The summary's tokens and the token that ends it."""
        summary = self._written(summary)
        if self.form == "dialogue":
            ids = self.tokenizer(text_target=summary).input_ids
            return list(ids) if ids and ids[-1] == self.end_id else [*ids, self.end_id]
        return [*self.tokenizer(summary, add_special_tokens=False).input_ids, self.end_id]

    def decode(self, summaries: Any) -> list[str]:
        """Summaries from token ids, persons as tags again."""
        texts = self.tokenizer.batch_decode(summaries, skip_special_tokens=True)
        return [SPEAKER.sub(r"#Person\1#", text) for text in texts] if self.persons == "speakers" else list(texts)

    def _written(self, text: str) -> str:
        return PERSON_TAG.sub(r"화자\1", text) if self.persons == "speakers" else text

    def _ids(self, prompt: Prompt, kept: list[str]) -> list[int]:
        if self.form == "dialogue":
            return list(self.tokenizer("\n".join(kept)).input_ids)
        if self.template:
            text = self.template.prompt(prompt.system, _request(prompt, kept))
            return self._begun(list(self.tokenizer(text, add_special_tokens=False).input_ids))
        # No system message either: a model without a chat template was never taught what one is.
        return list(self.tokenizer(f"{_request(prompt, kept)}\n\n[Answer]\n").input_ids)

    def _begun(self, ids: list[int]) -> list[int]:
        """With the tokenizer's begin token, which most templates write themselves; SOLAR's leaves it to the tokenizer,
        which begins every text with it."""
        begin = self.tokenizer.bos_token_id
        missing = begin is not None and ids[:1] != [begin] and list(self.tokenizer("가").input_ids)[:1] == [begin]
        return [begin, *ids] if missing else ids


def _request(prompt: Prompt, kept: list[str]) -> str:
    conversation = "\n".join(kept)
    return f"[Conversation]\n{conversation}\n\n[Question]\n{prompt.question}"
