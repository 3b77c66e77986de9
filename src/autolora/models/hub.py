"""Whether Hugging Face's hub can give a model's files: from its cache on this machine, or over the network."""

from __future__ import annotations

import ssl
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

TIMEOUT = 5.0  # seconds


def within_reach(repository: str) -> bool:
    """Say whether files of ORG/NAME or ORG/NAME@REVISION lie in the cache, or the hub answers.

    The hub's client tries each file for half a minute before it gives up, and warns meanwhile. One question tells a
    machine without a network beforehand.
    """
    return _cached(repository) or (not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT))


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
