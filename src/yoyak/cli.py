"""The command `yoyak`."""

import sys
from importlib.metadata import requires

from yoyak.core.errors import UserError, exits_with_one_line


@exits_with_one_line
def main() -> None:
    # Not above: Ctrl-C while libraries are imported ends in one line, too.
    from yoyak.core import language

    language.choose(sys.argv[1:])
    from yoyak.commands import app
    from yoyak.translated_help import translated

    try:
        translated(app)()
    except ModuleNotFoundError as error:
        if error.name is None or not _is_of_the_pipeline(error.name):
            raise
        raise UserError(
            f"this command needs the package {error.name}: `make setup` in the project, or `pip install "
            "'yoyak[pipeline]'`, brings it"
        ) from None


def _is_of_the_pipeline(module: str) -> bool:
    """Whether a package of pyproject's extra `pipeline` brings it, without which `yoyak score` does."""
    package = module.partition(".")[0].replace("_", "-")
    needed = [line.partition(";") for line in requires("yoyak") or []]
    return any("pipeline" in marker and line.startswith(package) for line, _, marker in needed)
