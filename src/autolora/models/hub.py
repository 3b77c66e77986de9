"""Hugging Face's hub: whether its files are in reach, in the cache here or over the network; and how to get one."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from autolora.errors import InputError

TIMEOUT = 5.0  # seconds


def within_reach(repository: str) -> bool:
    """Say whether files of ORG/NAME or ORG/NAME@REVISION lie in the cache, or the hub answers.

    The hub's client tries each file for half a minute before it gives up, and warns meanwhile. One question tells a
    machine without a network beforehand.
    """
    return _cached(repository) or (not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT))


def require_file(repository: str, name: str) -> None:
    """Find out at once whether :func:`fetch` can work.

    Raises:
        InputError: If the file is not in the cache and the hub is out of reach.
    """
    if _cached_file(repository, name) is None and (constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)):
        raise InputError(
            f"{name} of {repository} is not in this machine's cache, and the hub cannot be reached; go online, or "
            "fetch the file elsewhere and give it with --weights FILE"
        )


def fetch(repository: str, name: str) -> Path:
    """Return a file of ORG/NAME or ORG/NAME@REVISION on the hub: from the cache, or fetched into it.

    Raises:
        InputError: If it is out of reach, or the hub has no such file.
    """
    if (cached := _cached_file(repository, name)) is not None:
        return cached
    require_file(repository, name)
    try:
        return Path(_download(repository, name))
    except (OSError, ValueError) as error:  # the client's own errors are subclasses of OSError
        raise InputError(
            f"{name} of {repository} could not be fetched ({type(error).__name__}); try again, or fetch the file "
            "elsewhere and give it with --weights FILE"
        ) from None


def _cached_file(repository: str, name: str) -> Path | None:
    try:
        return Path(_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _download(repository: str, name: str, local_files_only: bool = False) -> str:
    repository, _, revision = repository.partition("@")
    if revision:
        return hf_hub_download(repository, name, revision=revision, local_files_only=local_files_only)
    return hf_hub_download(repository, name, local_files_only=local_files_only)


def _cached(repository: str) -> bool:
    name, _, revision = repository.partition("@")
    try:
        snapshot_download(name, revision=revision or None, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _answers(address: str) -> bool:
    """Whether anything at all comes back, through whatever proxy the environment names."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except HTTPError:
        return True
    except URLError as error:  # a certificate that Python alone does not trust is an answer: the client has its own
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
    return True
