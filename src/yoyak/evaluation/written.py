"""What readers need of the metrics files that stages write; a file that is damaged is refused where it is read."""

from typing import Annotated, Any

from pydantic import Field

from yoyak.core.records import Written
from yoyak.metrics.morphemes import Tokenizer
from yoyak.metrics.rouge import ReferenceRule

Score = Annotated[float, Field(ge=0, le=100)]
"""In percent."""
Difference = Annotated[float, Field(ge=-100, le=100)]
"""Of two scores, in percent points."""
Interval = Annotated[list[Difference], Field(min_length=2, max_length=2)]
"""Low and high end."""
Rows = Annotated[int, Field(ge=0, le=10**9)]


class Estimate(Written):
    """A mean score with its interval."""

    rouge_mean: Score
    ci95: Interval


class Entry(Estimate):
    """A model's scores."""

    rouge1: Score
    rouge2: Score
    rougeL: Score  # noqa: N815
    rows: Rows


class Delta(Written):
    """A difference of two models' means."""

    rouge_mean: Difference
    ci95: Interval
    p_holm: float
    noise: bool


class Best(Written):
    """The model that was chosen on dev."""

    model: str
    delta: dict[str, Delta]
    """Its mean less that of each other model."""


class ChosenBest(Best):
    cross_validated: Estimate | None


class Faults(Written):
    """Percent of a model's summaries with each fault."""

    empty: Score
    copied: Score
    no_sentence_end: Score
    unknown_tags: Score
    foreign_script: Score
    repeated: Score
    labelled: Score
    distinct: Score
    length_ratio: Annotated[float, Field(ge=0, le=10**6)]
    """Of characters; the references' are 1."""


Cosine = Annotated[float, Field(ge=-2, le=2)]
"""Or a difference of two."""


class MeanCosine(Written):
    """With its 95 % interval."""

    mean: Cosine
    ci95_low: Cosine
    ci95_high: Cosine


class ToDialogue(Written):
    to_dialogue: MeanCosine


class Near(ToDialogue):
    """How near summaries are in meaning."""

    to_references: MeanCosine


class Change(Near):
    """By how much one model's summaries are nearer than another's."""

    at_equal_length: MeanCosine


class NearModel(Near):
    by_tuning: Change | None = None


class Similarity(Written):
    """What a sentence encoder says of summaries."""

    encoder_version: str
    references: ToDialogue
    references_of_other_rows: ToDialogue
    models: dict[str, NearModel] = Field(min_length=1)


class Board(Written):
    """A split's leaderboard."""

    models: dict[str, Entry] = Field(min_length=1)
    best: Best
    similarity: Similarity | None = None


class Scoring(Written):
    """What scores were counted by, as far as they can be counted again."""

    tokenizer: Tokenizer
    library: Annotated[str, Field(pattern=r"^(rouge|rouge_score) \S+$", max_length=40)]
    references: ReferenceRule


class MadeBy(Scoring):
    tokenizer_version: str | None
    seed: int | None = None
    commit: str | None = None
    uncommitted: list[str] = Field(default_factory=list)


class Scores(Board):
    """`metrics/scores.json`."""

    scoring: MadeBy
    best: ChosenBest
    diagnostics: dict[str, Faults] = Field(min_length=1)
    test: Board | None = None


class Ensemble(Written):
    """`metrics/ensemble.json`."""

    ensemble: Entry
    delta: Delta | None
    used: str
    learned_on: str
    weights: dict[str, float]
    oracle: dict[str, Score] = Field(default_factory=dict)
    """Of each split whose references are known; earlier versions had none."""
    test: Entry | None = None
    cross_validated: Estimate | None = None
    similarity: Similarity | None = None


class Rule(Written):
    """What a repair of summaries gains."""

    on: bool
    rows_changed: Rows
    delta: Delta


class Postprocessing(Written):
    """`metrics/postprocessing.json`."""

    rules: dict[str, Rule]
    rows: Rows


class Mean(Written):
    rouge_mean: Score
    ci95_low: Score
    ci95_high: Score


class DevScore(Written):
    """`ensemble/dev_score.json`."""

    scoring: dict[str, Any]
    ensemble: Mean


class Summaries(Written):
    """A row of references."""

    fname: str
    summaries: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Text(Written):
    """A row of predictions."""

    fname: str
    text: str


class Counted(Written):
    """What is needed of `metrics/scores.json`, an old revision's, too."""

    scoring: Scoring
    models: dict[str, Any]
