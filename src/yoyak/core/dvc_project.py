"""DVC's own words, in a line that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.core.params import read_section
from yoyak.core.run import RunParams

NOT_INSTALLED = re.compile(r"(\w+) is supported, but requires 'dvc-(\w+)' to be installed")


@contextmanager
def in_one_line(where: str) -> Iterator[None]:
    """What DVC cannot do with this project at `where`, a revision or `workspace`."""
    # It takes a second to load.
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.scm import NoSCMError, RevError, SCMError
    from pygit2 import GitError

    try:
        yield
    except RevError:
        raise UserError(f"no revision {where!r}; a git revision, a DVC experiment or workspace is expected") from None
    except ImportError as error:
        raise _not_installed(error) from None
    except NotDvcRepoError:
        raise UserError("no DVC repository here or above; is this the project's folder?") from None
    except TypeError:
        # What DVC says of a list in `run` that is none; of any other the traceback is ours.
        if where == "workspace":
            read_section(RunParams, "run")
        raise
    except KeyError as error:
        if "getpwuid" not in str(error):
            raise
        # In a container that was started with a number of its host's.
        raise UserError(
            "this user has a number and no name here, and DVC and PyTorch ask for one: `export USER=yoyak`"
        ) from None
    except GitError:
        if (refused := repository.refusal()) is None:
            raise
        raise UserError(refused) from None
    except NoSCMError:
        raise UserError(
            "this needs git, which core.no_scm switches off: `dvc config --local --unset core.no_scm`, and `git init` "
            "where there is no repository"
        ) from None
    except SCMError as error:
        raise UserError(f"{error}; DVC needs one: `git init`, or `dvc config --local core.no_scm true`") from None
    except DvcException as error:
        if isinstance(error.__cause__, ImportError):
            raise _not_installed(error.__cause__) from None
        raise UserError(f"{where}: {error}") from None


def _not_installed(error: ImportError) -> Exception:
    """For a remote such as s3://…, whose DVC plug-in no extra of ours brings."""
    found = NOT_INSTALLED.search(str(error))
    if found is None:
        return error
    scheme, plugin = found.groups()
    return UserError(
        f"the DVC remote is {scheme}://…, and DVC's plug-in for it is missing: `pip install 'dvc[{plugin}]'`, or name "
        "another remote"
    )
