"""From run folders to the file: what is known is collected, a few images are attacked, and the page is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Literal

from autolora.errors import InputError
from autolora.experiments.result import write_atomically
from autolora.paths import expanded
from autolora.report.collected import collect
from autolora.report.examination import examine
from autolora.report.page import render
from autolora.training.precision import resolve_device

REPORT = "report.html"
SUFFIXES = (".html", ".htm")


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data: str | None = None,
    gallery: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
    sampled: int | None = None,
) -> Path:
    """Write one HTML file about a run, or about several side by side.

    Args:
        folders: Run folders.
        out: The file; None is ``report.html``, in the folder of the one run, or here for several.
        data: Where the images are; None takes the place that each run's configuration names.
        gallery: Whether to load and attack images.
        device: Where to attack them.
        progress: Show bars.
        sampled: Images that are attacked to count what is taken for what; None takes about a batch.

    Returns:
        The file.

    Raises:
        InputError: If a folder holds no run, or the file cannot be written.
    """
    where = resolve_device(device)
    runs = collect(folders)
    file = expanded(out) if out is not None else runs[0].folder / REPORT if len(runs) == 1 else Path(REPORT)
    _check(file)
    examination = examine(runs, data=data, gallery=gallery, device=where, progress=progress, sampled=sampled)
    write_atomically(file, render(runs, examination, _command(folders, out, data, gallery)))
    return file


def _check(file: Path) -> None:
    """Refuse a file that cannot be written, before anything slow begins."""
    if file.suffix.lower() not in SUFFIXES:
        given = repr(file.suffix) if file.suffix else "no suffix"
        raise InputError(f"--out {file} has {given}; a report is a file of HTML, so end its name in .html")
    if file.is_dir():
        raise InputError(f"--out {file} is a folder; name a file")


def _command(folders: Sequence[str | Path], out: str | Path | None, data: str | None, gallery: bool) -> str:
    """Return the command that writes this report."""
    words = ["autolora", "report", *(quote(str(folder)) for folder in folders)]
    for name, value in (("out", out), ("data", data)):
        words += [f"--{name}", quote(str(value))] if value is not None else []
    return " ".join(words + ["--no-gallery"] * (not gallery))
