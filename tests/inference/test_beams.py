"""Our beam search finds what transformers' `generate` finds, in its order, whatever company a dialogue has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from beam_searches import FAMILIES, SEARCHES, assert_same, config_for, encoded, load, ours, params_of, some_ends, theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from inferences import WithoutTheHost
from trainers import PROMPTS
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from twins import Family

from yoyak.core.records import Prediction
from yoyak.inference import beams, generate, hf_decoding
from yoyak.inference.averaging import Averaged
from yoyak.inference.beam_search import BeamSearch
from yoyak.inference.params import GenerationParams
from yoyak.modeling import cuda_graphs
from yoyak.modeling.loading import Loaded


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(family.__name__) / "twin"


@pytest.fixture(scope="module")
def loaded(family: Family, folder: Path) -> Loaded:
    return load(family, folder, 0)


@pytest.fixture(scope="module")
def ends(loaded: Loaded) -> list[int]:
    return some_ends(loaded)


def assert_same_predictions(ones: list[Prediction], others: list[Prediction]) -> None:
    """But for the last digits of log-probabilities."""
    for one, other in zip(ones, others, strict=True):
        assert [candidate.text for candidate in one.candidates] == [candidate.text for candidate in other.candidates]
        expected = [candidate.log_probability for candidate in other.candidates]
        assert [candidate.log_probability for candidate in one.candidates] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("search", SEARCHES)
def test_candidates_are_those_of_generate(loaded: Loaded, ends: list[int], search: str) -> None:
    """Among them such as end, and such as the limit cuts."""
    prompts, params = [encoded(loaded)], params_of(**SEARCHES[search])
    expected = theirs([loaded], prompts, params, ends)
    answers = [answer for row in expected for answer in row.ids]
    assert len(set(map(tuple, answers))) > len(PROMPTS) / 2
    assert params.length_penalty > 0 or len(set(map(len, answers))) > 1
    assert_same(ours([loaded], prompts, params, ends), expected)
    assert loaded.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("max_batch_size", [1, 3, 50])
def test_company_changes_nothing(loaded: Loaded, ends: list[int], max_batch_size: int) -> None:
    """Slots are given to the next prompt, narrowed and closed on the way."""
    prompts, params = [encoded(loaded)], params_of(candidates=3)
    assert_same(ours([loaded], prompts, params, ends, max_batch_size), theirs([loaded], prompts, params, ends))


def test_two_models_search_by_the_mean_of_their_logits(
    family: Family, folder: Path, loaded: Loaded, ends: list[int]
) -> None:
    """Each reads a prompt of its own, here of another dialogue."""
    members = [loaded, load(family, folder, 1)]
    prompts = [encoded(loaded)[:6], encoded(loaded)[6:]]
    params = params_of(num_beams=4, candidates=4)
    found = ours(members, prompts, params, ends)
    assert_same(found, theirs(members, prompts, params, ends))
    alone = ours(members[:1], prompts[:1], params, ends)
    assert [row.ids for row in found] != [row.ids for row in alone]


def test_the_script_guard_forbids_the_same(
    family: Family, folder: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(family, folder, script_guard=True, candidates=3)
    free = config_for(family, folder, candidates=3)
    found = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "ours").predictions
    assert found != generate.generate(loaded, PROMPTS, free, "twin", tmp_path / "free").predictions
    monkeypatch.setattr(generate, "_is_ours", lambda loaded, config: False)
    by_generate = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "theirs").predictions
    assert_same_predictions(found, by_generate)


def test_an_average_with_itself_is_that_model(family: Family, folder: Path, loaded: Loaded, tmp_path: Path) -> None:
    config = config_for(family, folder, candidates=2)
    alone = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "alone").predictions
    twice = generate.generate(Averaged((loaded, loaded)), PROMPTS, config, "twin", tmp_path / "twice").predictions
    assert_same_predictions(twice, alone)


def addresses(found: Any) -> list[int]:
    """Of the tensors that an object has, and what it is made of."""
    if isinstance(found, torch.Tensor):
        return [found.data_ptr()]
    if isinstance(found, dict):
        return [address for part in found.values() for address in addresses(part)]
    if isinstance(found, list | tuple):
        return [address for part in found for address in addresses(part)]
    if not type(found).__module__.startswith(("yoyak.inference", "yoyak.modeling")):
        return []
    return addresses({name: part for name, part in vars(found).items() if not name.startswith("_")})


def test_a_step_can_be_recorded(loaded: Loaded, ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs nothing from the host, and what it looks at stays where it is, or it is known to have changed."""
    step, seen = cuda_graphs.GraphedStep.__call__, []

    def checked(recorded: cuda_graphs.GraphedStep, next_tokens: Any) -> torch.Tensor:
        slots = next_tokens
        now = addresses([slots.__self__.search, slots.__self__.readers])
        assert len(now) > 20
        assert recorded.changed or now == seen[-1]
        seen.append(now)
        with WithoutTheHost():
            return step(recorded, next_tokens)

    monkeypatch.setattr(cuda_graphs.GraphedStep, "__call__", checked)
    models, prompts = [loaded.model, loaded.model], [encoded(loaded)] * 2
    forbidden = torch.zeros((len(prompts[0]), loaded.model.config.vocab_size), dtype=torch.bool)
    params = params_of(**SEARCHES["penalties"] | {"max_new_tokens": 70, "length_penalty": -1.0})
    request = beams.Request(params, ends, lambda numbers: forbidden[numbers])
    assert len(list(beams.decode(models, prompts, 4, request))) == len(PROMPTS)
    assert len(set(map(tuple, seen))) > 1


# The search alone, of a model that is a table

WORDS = 9


class Table(PreTrainedModel, GenerationMixin):
    """Its logits depend on the last token and on how many there are."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(PreTrainedConfig(vocab_size=WORDS))
        self.logits = torch.nn.Parameter(logits, requires_grad=False)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.logits[input_ids.shape[1] - 1, input_ids[:, -1]][:, None])


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 4),
    st.integers(1, 7),
    st.sets(st.integers(1, WORDS - 1), min_size=1, max_size=2),
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([0.3, 1.0, 4.0]),
    st.sets(st.integers(1, WORDS - 1), max_size=7),
    st.sampled_from([{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"min_new_tokens": 3}]),
)
@settings(max_examples=150, deadline=None)
def test_the_search_keeps_what_generate_keeps(
    seed: int,
    width: int,
    most: int,
    ends: set[int],
    length_penalty: float,
    spread: float,
    banned: set[int],
    penalties: dict[str, Any],
) -> None:
    """Where almost nothing is allowed, too. Three rows, of which the last is begun when the others are under way."""
    if penalties.get("min_new_tokens", 0) > most:
        penalties = {}
    params = params_of(
        num_beams=width, candidates=width, max_new_tokens=most, length_penalty=length_penalty, **penalties
    )
    logits = torch.randn((3, most, WORDS, WORDS), generator=torch.Generator().manual_seed(seed)) * spread
    forbidden = torch.zeros((3, WORDS), dtype=torch.bool)
    forbidden[1, list(banned)] = True
    search = BeamSearch(3, params, sorted(ends), torch.device("cpu"))
    found: dict[int, Any] = {}

    def advance(rows: list[int]) -> None:
        at = torch.tensor(rows)
        step = search.next_step()
        last = torch.where(search.counts[:, None] > 0, step.tokens, 0)
        following = torch.stack([logits[row, min(int(search.counts[row]), most - 1), last[row]] for row in rows])
        for row, over in zip(rows, search.advance(at, following).tolist(), strict=True):
            if over and row in begun:
                begun.remove(row)
                found[row] = search.results(torch.tensor([row]))[0][0]
                search.end(torch.tensor([row]))

    begun = {0, 1}
    search.begin(torch.tensor([0, 1]), forbidden[:2])
    advance([0, 1])
    begun.add(2)
    search.begin(torch.tensor([2]), forbidden[2:])
    while begun:
        advance([0, 1, 2])
    for row in range(3):
        expected = by_generate(Table(logits[row]), params, sorted(ends), forbidden[row : row + 1])
        # What was never kept is an end alone; `generate` fills it with ends, where it has no other padding.
        assert found[row] == expected


def by_generate(model: Table, params: GenerationParams, ends: list[int], forbidden: torch.Tensor) -> list[list[int]]:
    config = GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        do_sample=False,
        num_beams=params.num_beams,
        num_return_sequences=params.candidates,
        length_penalty=params.length_penalty,
        eos_token_id=ends,
        pad_token_id=0,
        use_cache=False,
    )
    processors = hf_decoding.for_candidates([hf_decoding._penalties(params, ends)], 1, forbidden)
    start = torch.zeros((1, 1), dtype=torch.long)
    sequences = model.generate(input_ids=start, generation_config=config, logits_processor=processors)
    return [hf_decoding._until_end(answer, ends) for answer in sequences[:, 1:].tolist()]
