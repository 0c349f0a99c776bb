"""The command `yoyak`."""

import sys

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    # Not above: Ctrl-C while libraries are imported ends in one line, too.
    from yoyak.core import language

    language.choose(sys.argv[1:])
    from yoyak.commands import app
    from yoyak.translated_help import translated

    translated(app)()
