"""A picture of the submissions and their scores."""

from pathlib import Path

import pandas as pd

from yoyak.evaluation.plots import BLUE, GREY, picture


def draw_submissions(submissions: pd.DataFrame, path: Path) -> None:
    """Dev, public and private scores over time; and public against dev.

    `submissions` has `time` and the three scores in percent, a row a submission; scores not known are NaN.
    """
    with picture(path, (11, 4.5), 2) as (over_time, against):
        for name, color in (("dev", GREY), ("public", BLUE), ("private", "#c2571a")):
            known = submissions.dropna(subset=[name]).sort_values("time")
            over_time.plot(known["time"], known[name], marker="o", color=color, label=name)
        over_time.tick_params(axis="x", rotation=30)
        if len(submissions) == 1:
            (time,) = submissions["time"]
            over_time.set_xlim(time - pd.Timedelta(days=1), time + pd.Timedelta(days=1))
        over_time.set_ylabel("mean of ROUGE-1/2/L F1, percent")
        over_time.legend(frameon=False)
        both = submissions.dropna(subset=["dev", "public"])
        against.scatter(both["dev"], both["public"], color=BLUE)
        against.set_xlabel("dev")
        against.set_ylabel("public")
