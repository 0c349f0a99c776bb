"""An exported folder on the Hugging Face Hub."""

from pathlib import Path

from yoyak.core import progress
from yoyak.core.errors import UserError
from yoyak.modeling import hub


def check_name(repository: str) -> None:
    """Stop before any work where a push could only fail."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: {str(error).splitlines()[0]}") from None
    if get_token() is None:
        raise UserError("--push: no token of the hub is here; `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str) -> str:
    """Upload all of it, into a repository that is private where it is new; the address of the commit.

    The hub checks the card first, and nothing is there where it refuses that.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        with progress.timed(f"uploading {folder} to {repository}"):
            api.create_repo(repository, private=True, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"{folder.name}, by yoyak export"
            )
    except hub.errors() as error:
        raise UserError(_refused(folder, repository, hub.reason(error))) from None
    except ValueError as error:
        # The hub's word on the card.
        raise UserError(_refused(folder, repository, str(error))) from None
    return str(commit.commit_url)


def _refused(folder: Path, repository: str, why: str) -> str:
    return f"{repository}: the hub refuses it ({why}); {folder} is whole: `hf upload {repository} {folder}` tries again"
