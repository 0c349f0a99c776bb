"""Stage `submit`: the ensemble's test summaries and the sample submission in; submission.csv and its checklist out."""

import shutil
import sys
from pathlib import Path

from yoyak import submission
from yoyak.dialogues import DataParams
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, Prompt, read_json, read_records, write_json
from yoyak.submission import SubmissionParams


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    data = check(DataParams, content["data"], "params.yaml: data")
    params = check(SubmissionParams, content["submission"], "params.yaml: submission")
    sample = submission.read_sample(data.dir / data.sample_submission)
    train, test = (read_records(Path(f"data/prompts/{split}.jsonl"), Prompt) for split in ("train", "test"))
    known = submission.known(train, test)
    # What fails a check never bears the name of a submission.
    draft = Path("submission/draft.csv")
    submission.write(submission.fill(sample, read_records(Path("ensemble/test.jsonl"), Prediction)), draft)
    checks = submission.checklist(draft, sample, known, params)
    origin = submission.made_by(data, read_json(Path("ensemble/dev_score.json")))
    report = submission.report(draft, checks, known, origin)
    Path("submission/checklist.md").write_text(submission.to_markdown(checks, report), encoding="utf-8")
    write_json(Path("submission/checklist.json"), report)
    write_json(
        Path("metrics/submission.json"),
        {"rows": len(sample), "checks": {check.name: len(check.faults) for check in checks}},
    )
    submission.require(checks)
    path = draft.replace("submission/submission.csv")
    # DVC deletes this stage's outputs before each run: the last good submission has a copy it does not know of.
    shutil.copyfile(path, path.with_name("last_good.csv"))
    shutil.copyfile(path.with_name("checklist.json"), path.with_name("last_good.json"))
    for warning in (each for each in checks if each.faults):
        print(f"warning: check failed: {warning.name}: {warning.reason()}", file=sys.stderr)


if __name__ == "__main__":
    main()
