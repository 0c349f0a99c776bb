"""A chat model's template: in which form it takes a question, what stands before an answer, and what ends one."""

from typing import Any, NamedTuple

from yoyak.core.errors import UserError

# Llama-3.2's chat template writes today's date into each prompt unless one is given: outputs would change daily.
OPTIONS: dict[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False}
SYSTEM, QUESTION, ANSWER = "체계의글", "질문의글", "대답의글"
"""What is written to find out; no template has these words of its own."""
RAISED = (TypeError, LookupError, ValueError, AttributeError, ArithmeticError)
"""What a template raises beside Jinja's own errors, when it is given what it does not expect."""


class Form(NamedTuple):
    """Messages as a template takes them."""

    system_role: bool
    """The system text is a message of its own; else it stands in front of the user's, as Gemma 3 writes it."""
    in_parts: bool
    """A message's content is a list of parts, as templates of models that see pictures want it."""

    def messages(self, system: str, request: str, *answers: str) -> list[dict[str, Any]]:
        own = [("system", system), ("user", request)]
        said = own if self.system_role else [("user", f"{system}\n\n{request}")]
        return [
            {"role": role, "content": [{"type": "text", "text": text}] if self.in_parts else text}
            for role, text in [*said, *(("assistant", answer) for answer in answers)]
        ]


FORMS = (Form(True, False), Form(True, True), Form(False, False), Form(False, True))


class ChatTemplate:
    """A tokenizer's chat template, asked in the first form in which it writes what it is given.

    Training and inference both ask here, so that a model reads at inference what it was trained on.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.form = self._form()
        before, self.after_answer = self._around_answer()
        # A blank alone would part a token that has it from the answer's first letters.
        self.before_answer = before.rstrip(" ") if before.strip() else ""

    def prompt(self, system: str, request: str) -> str:
        """All that stands before an answer.

        It may be more than the template writes to begin one: gpt-oss begins with `<|start|>assistant`, and its answers
        stand behind `<|channel|>final<|message|>`.
        """
        return self._written(self.form.messages(system, request), begun=True) + self.before_answer

    def end_id(self) -> int:
        """The token that ends an answer: the first special one behind it, which is not every tokenizer's end token.

        Templates that end an answer with a line break (SOLAR) or nothing (GLM-4) leave it to the tokenizer's end token.
        """
        # Gemma has blank lines among its added tokens, and an answer may have them, too.
        added = self.tokenizer.added_tokens_decoder.items()
        special = {*self.tokenizer.all_special_ids, *(token for token, text in added if str(text).strip())}
        behind = self.tokenizer(self.after_answer, add_special_tokens=False).input_ids
        return next((int(token) for token in behind if token in special), int(self.tokenizer.eos_token_id))

    def _form(self) -> Form:
        from jinja2 import TemplateError

        refusal = "it leaves the question out"
        for form in FORMS:
            try:
                text = self._written(form.messages(SYSTEM, QUESTION), begun=True)
            except (TemplateError, *RAISED) as error:
                refusal = f"{type(error).__name__}: {error}"
                continue
            if SYSTEM in text and QUESTION in text:
                return form
        raise UserError(
            f"its chat template takes no question of a user ({refusal}); mend it, or take it out, in a local folder"
        )

    def _around_answer(self) -> tuple[str, str]:
        """What a conversation that has an answer says before it, beyond the prompt, and after it."""
        from jinja2 import TemplateError

        asked = self._written(self.form.messages(SYSTEM, QUESTION), begun=True)
        try:
            answered = self._written(self.form.messages(SYSTEM, QUESTION, ANSWER), begun=False)
        except (TemplateError, *RAISED):
            return "", ""
        before, found, after = answered.rpartition(ANSWER)
        return (before[len(asked) :] if before.startswith(asked) else "", after) if found else ("", "")

    def _written(self, messages: list[dict[str, Any]], begun: bool) -> str:
        """`begun`: with the beginning of an answer."""
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=begun, **OPTIONS))


def keep_default(tokenizer: Any) -> None:
    """Of several chat templates, for tools say, the one that questions are written with."""
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        return
    if "default" not in templates:
        raise UserError(
            f"of its chat templates ({', '.join(sorted(templates))}) none is named default; name one so in the "
            "tokenizer_config.json of a local folder"
        )
    tokenizer.chat_template = templates["default"]
