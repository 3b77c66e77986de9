"""Fetch the official archive of a named set, if it can be told from a damaged or another one.

Nothing is downloaded unless it is asked for. An archive stays packed, since it is read in place.
"""

import os
import tempfile
from pathlib import Path

from autolora.data.named import NAMED_SETS
from autolora.data.official import Package, absent, data_root
from autolora.data.sets.torchvision_sets import PREFIX, known_set, open_set
from autolora.errors import InputError


def download(name: str, root: str | Path | None = None) -> Path:
    """Download a named set into the data root, through torchvision's downloader, and check its checksum.

    Args:
        name: One of `NAMED_SETS`, or ``torchvision:NAME``.
        root: Where to; by default the data root.

    Returns:
        The folder that it is in.

    Raises:
        InputError: it has no checksum or no name, or the download failed; nothing of it is left then.
    """
    folder = data_root(root)
    if name.startswith(PREFIX):
        download_torchvision(name.removeprefix(PREFIX), folder)
        return folder
    known = NAMED_SETS.get(name)
    if known is None or not known.packages:
        fetchable = [*(n for n, s in NAMED_SETS.items() if s.fetchable), f"{PREFIX}NAME"]
        reason = "needs no download" if known is not None else "is no named data set"
        raise InputError(f"{name} {reason}; what can be downloaded is {', '.join(fetchable)}")
    if not known.fetchable:  # without a checksum nobody knows what came
        raise absent(name, known.packages, folder, known.terms, False)
    for package in known.packages:
        fetch(package, folder)
    return folder


def fetch(package: Package, folder: Path) -> None:
    """Download one archive, unless it is there."""
    from torchvision.datasets.utils import download_url

    target = folder / package.archive
    if target.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            download_url(package.address, scratch, package.archive, package.md5)
            os.replace(Path(scratch) / package.archive, target)
    except (OSError, RuntimeError) as error:  # no network, no room, a wrong checksum
        raise InputError(
            f"{package.address} could not be downloaded to {folder} ({' '.join(str(error).split())}); "
            f"try again, or put {package.archive} there by hand"
        ) from error


def download_torchvision(name: str, folder: Path) -> None:
    """Let torchvision download one of its sets."""
    known = known_set(name)
    if not known.checked:
        raise InputError(
            f"torchvision downloads {name} without a checksum, so nobody knows what comes; download it by hand to "
            f"{folder}, as torchvision has it. Terms: {known.terms}"
        )
    for options in known.splits.values():
        try:
            open_set(name, known, options, folder, download=True)
        except InputError as error:
            reason = " ".join(str(error.__cause__).split())
            raise InputError(f"{PREFIX}{name} could not be downloaded to {folder} ({reason}); try again") from error
