"""To Hugging Face's hub: a repository for the model, and the folder in it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token

from autolora.errors import InputError
from autolora.models.hub import within_reach


def check_upload(repository: str) -> None:
    """Refuse at once what the hub would refuse after the work is done.

    Raises:
        InputError: If the name is none, nobody is logged in, or the hub is out of reach.
    """
    if repository.count("/") != 1:
        raise InputError(f"--push-to-hub {repository!r} does not say whose it is; write ORG/NAME or USER/NAME")
    if get_token() is None:
        raise InputError(
            f"--push-to-hub {repository}: nobody is logged in to the hub here; run `hf auth login`, or set HF_TOKEN to "
            "a token that may write"
        )
    try:
        reachable = within_reach(repository)
    except ValueError as error:  # the hub's client checks names
        raise InputError(f"--push-to-hub {repository!r} is no name on the hub: {error}") from None
    if not reachable:
        raise InputError(
            f"--push-to-hub {repository}: the hub cannot be reached; go online, or leave it out and upload the folder "
            "later with `hf upload`"
        )


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a folder, and return the address of its repository, which is made if it does not exist.

    Raises:
        InputError: If the hub refuses; the folder stays.
    """
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="model", folder_path=folder, commit_message="autolora export")
    except (OSError, ValueError) as error:  # the client's errors are of the first, a card that it refuses of the second
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"--push-to-hub {repository}: the hub refused ({reason}); {folder} is complete, so mend that and upload it "
            f"with `hf upload {repository} {folder}`"
        ) from None
    return str(address)
