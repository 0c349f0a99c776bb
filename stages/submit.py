"""Stage `submit`: the ensemble's test summaries and the sample submission in; submission.csv and its checklist out."""

import shutil
from pathlib import Path

from yoyak import submission
from yoyak.dialogues import DataParams
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, read_records, write_json
from yoyak.submission import SubmissionParams


@exits_with_one_line
def main() -> None:
    params = read_yaml(Path("params.yaml"))
    data = check(DataParams, params["data"], "params.yaml: data")
    sample = submission.read_sample(data.dir / data.sample_submission)
    # What fails a check never bears the name of a submission.
    draft = Path("submission/draft.csv")
    submission.write(submission.fill(sample, read_records(Path("ensemble/test.jsonl"), Prediction)), draft)
    checks = submission.checklist(
        draft, sample, check(SubmissionParams, params["submission"], "params.yaml: submission")
    )
    Path("submission/checklist.md").write_text(submission.to_markdown(checks), encoding="utf-8")
    write_json(
        Path("metrics/submission.json"),
        {"rows": len(sample), "checks": {check.name: len(check.faults) for check in checks}},
    )
    submission.require(checks)
    path = draft.replace("submission/submission.csv")
    # DVC deletes this stage's outputs before each run: the last good submission has a copy it does not know of.
    shutil.copyfile(path, path.with_name("last_good.csv"))


if __name__ == "__main__":
    main()
