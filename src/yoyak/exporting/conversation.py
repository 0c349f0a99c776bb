"""How an exported model is asked: by a chat template that makes of plain messages what the model was trained on."""

import json
from typing import Any

from yoyak.core.records import Prompt
from yoyak.modeling.chat_template import OPTIONS, QUESTION, SYSTEM, ChatTemplate
from yoyak.modeling.tokenization import BEFORE_ANSWER, PromptTokenizer

Asked = str | list[dict[str, Any]]
"""Messages for a chat template; or the text that an encoder reads."""


class Conversation:
    """What a user of the exported model says, and the chat template that is exported with it."""

    def __init__(self, prompt_tokenizer: PromptTokenizer, seq2seq: bool) -> None:
        self.prompt_tokenizer = prompt_tokenizer
        own = self.prompt_tokenizer.template
        self.chat_template: str | None = None
        if own:
            self.chat_template = _as_trained(own, prompt_tokenizer.tokenizer)
        elif not seq2seq:
            self.chat_template = _without_roles(prompt_tokenizer.tokenizer, self._before_answer)

    def asked(self, prompt: Prompt) -> Asked:
        return self.around(prompt.system, self.prompt_tokenizer.request(prompt, prompt.turns))

    def around(self, system: str, request: str) -> Asked:
        if template := self.prompt_tokenizer.template:
            return template.form.messages(system, request)
        if self.chat_template:
            return [{"role": "user", "content": request}]
        return request + self._before_answer

    @property
    def _before_answer(self) -> str:
        return BEFORE_ANSWER if self.prompt_tokenizer.form == "structured" else ""


def _as_trained(template: ChatTemplate, tokenizer: Any) -> str:
    """The tokenizer's own template, which needs no options, begin token or answer's beginning from its caller."""
    own = str(tokenizer.chat_template).removesuffix("\n")
    fixed = [f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in OPTIONS.items() if name in own]
    if _leaves_begin_to_tokenizer(template, tokenizer):
        fixed.append(f"{{{{- {_literal(tokenizer.bos_token)} }}}}")
    begins = _when_asked_for(template.before_answer) if template.before_answer else ""
    return "".join(fixed) + own + begins


def _leaves_begin_to_tokenizer(template: ChatTemplate, tokenizer: Any) -> bool:
    """As `PromptTokenizer` sees it, of SOLAR's template."""
    begin = tokenizer.bos_token_id
    ids = tokenizer(template.prompt(SYSTEM, QUESTION), add_special_tokens=False).input_ids
    return begin is not None and ids[:1] != [begin] and list(tokenizer("가").input_ids)[:1] == [begin]


def _without_roles(tokenizer: Any, before_answer: str) -> str:
    """For models that were never taught what a role is: what a user says, in the tokens around any text."""
    around = list(tokenizer(QUESTION).input_ids)
    inner = list(tokenizer(QUESTION, add_special_tokens=False).input_ids)
    start = next(place for place in range(len(around)) if around[place : place + len(inner)] == inner)
    begin, end = (
        "".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (around[:start], around[start + len(inner) :])
    )
    return (
        (f"{{{{- {_literal(begin)} }}}}" if begin else "")
        + "{%- for message in messages %}{%- if message['role'] == 'assistant' %}"
        + f"{{{{- {_literal(before_answer)} + message['content'] + {_literal(tokenizer.eos_token)} }}}}"
        + "{%- else %}{{- message['content'] }}{%- endif %}{%- endfor %}"
        + (_when_asked_for(before_answer + end) if before_answer + end else "")
    )


def _when_asked_for(text: str) -> str:
    return f"{{% if add_generation_prompt %}}{{{{ {_literal(text)} }}}}{{% endif %}}"


def _literal(text: str) -> str:
    """As Jinja reads it; what is no ASCII as it is, which each of its implementations takes."""
    return json.dumps(text, ensure_ascii=False)
