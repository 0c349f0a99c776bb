"""One submission, from the ensemble's summaries to `submission.csv` and its checklist."""

import shutil
import sys
from pathlib import Path

from yoyak.core.files import whole, write_whole
from yoyak.core.records import Prediction, Prompt, read_object, read_records, write_json
from yoyak.data.dialogues import DataParams
from yoyak.evaluation.written import DevScore
from yoyak.submission import checklist
from yoyak.submission.file import SubmissionParams, fill, read_sample, write


def submit(data: DataParams, params: SubmissionParams) -> None:
    """Write the submission, unless a hard check fails, and in any case the checklist."""
    sample = read_sample(data.dir / data.sample_submission)
    train, test = (read_records(Path(f"data/prompts/{split}.jsonl"), Prompt) for split in ("train", "test"))
    known = checklist.known(train, test)
    summaries = read_records(Path("ensemble/test.jsonl"), Prediction)
    origin = checklist.made_by(data, read_object(Path("ensemble/dev_score.json"), DevScore))
    # What fails a check never bears the name of a submission.
    draft = Path("submission/draft.csv")
    write(fill(sample, summaries), draft)
    checks = checklist.checklist(draft, sample, known, params)
    report = checklist.report(draft, checks, known, origin)
    write_whole(Path("submission/checklist.md"), checklist.to_markdown(checks, report))
    write_json(Path("submission/checklist.json"), report)
    write_json(
        Path("metrics/submission.json"),
        {"rows": len(sample), "checks": {check.name: len(check.faults) for check in checks}},
    )
    checklist.require(checks)
    path = draft.replace("submission/submission.csv")
    # DVC deletes this stage's outputs before each run: the last good submission has a copy it does not know of.
    # A full disk leaves the copy of before.
    for source, copy in ((path, "last_good.csv"), (path.with_name("checklist.json"), "last_good.json")):
        with whole(path.with_name(copy), source.stat().st_size) as half:
            shutil.copyfile(source, half)
    for warning in (each for each in checks if each.faults):
        print(f"warning: check failed: {warning.name}: {warning.reason()}", file=sys.stderr)
