"""Stage `submit`: the ensemble's test summaries and the sample submission in; submission.csv and its checklist out."""

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.params import read_section
    from yoyak.data.dialogues import DataParams
    from yoyak.submission.file import SubmissionParams
    from yoyak.submission.run import submit

    submit(read_section(DataParams, "data"), read_section(SubmissionParams, "submission"))


if __name__ == "__main__":
    main()
