"""The prompt of a row: the words round its dialogue, and whether they name the topic."""

from pydantic import field_validator

from yoyak.core.params import Section
from yoyak.core.records import Prompt
from yoyak.data.dialogues import CleanedDialogue


class PromptParams(Section):
    """The words round the dialogue."""

    system: str
    """System message, for models whose chat template has one."""
    question: str
    """Asks for the summary."""
    question_with_topic: str
    """The same with `{topic}`, for training prompts where `train_topic` is on."""
    train_topic: bool = False
    """Name the topic in training prompts. Test rows have none, so dev prompts never name it."""

    @field_validator("question_with_topic")
    @classmethod
    def _names_the_topic(cls, question: str) -> str:
        if "{topic}" not in question:
            raise ValueError("{topic} must stand in it")
        return question


def build(dialogue: CleanedDialogue, params: PromptParams, for_training: bool) -> Prompt:
    """The prompt of a row; dev prompts are built as test prompts are, so that dev scores can be repeated on test."""
    row, turns = dialogue
    topic = row.topic if for_training and params.train_topic else None
    return Prompt(
        fname=row.fname,
        system=params.system,
        turns=tuple(turns),
        question=params.question_with_topic.replace("{topic}", topic) if topic else params.question,
        summary=row.summaries[0] if row.summaries else None,
    )
