"""Stage `submit`: the ensemble's test summaries and the sample submission in; submission.csv and its checklist out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import check, read_yaml
from yoyak.data.dialogues import DataParams
from yoyak.submission.file import SubmissionParams
from yoyak.submission.run import submit


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    data = check(DataParams, content["data"], "params.yaml: data")
    submit(data, check(SubmissionParams, content["submission"], "params.yaml: submission"))


if __name__ == "__main__":
    main()
