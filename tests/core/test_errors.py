"""What a user does to a stage ends it in one line."""

import signal

import pytest

from yoyak.core.errors import exits_with_one_line


def test_ctrl_c_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        exits_with_one_line(lambda: signal.raise_signal(signal.SIGINT))()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
