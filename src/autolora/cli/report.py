"""``autolora report``: one run or several as a single HTML file."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common
from autolora.errors import InputError

NAME = "report"
HELP = "one self-contained HTML file about a run, or about several side by side"
EPILOG = """examples:
  autolora report runs/photos                            writes runs/photos/report.html
  autolora report runs/photos-autolora runs/photos-at    side by side, into report.html
  autolora report runs/photos --out photos.html --data elsewhere/photos.zip
  autolora report runs/photos --no-gallery               without loading the images
"""
REPORT = "report.html"
SUFFIXES = (".html", ".htm")


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Write what is known about runs into one HTML file that opens from disk and needs no network: "
        "accuracies with intervals and doubts, curves, classes, corruptions, images under attack, cost, and how to "
        "repeat it. What is missing is said, with the command that fills it.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("runs", nargs="*", type=str, default=[], metavar="RUN", help="run folders, one or more")
    parser.add_argument(
        "--out", type=str | None, default=None, help="file (default: RUN/report.html, or ./report.html)"
    )
    parser.add_argument(
        "--data", type=str | None, default=None, help="where the images are (default: as the run's configuration says)"
    )
    parser.add_argument("--no-gallery", action="store_true", help="load and attack no images: quick, and smaller")
    parser.add_argument(
        "--device",
        type=Literal["auto", "cpu", "cuda"],
        default="auto",
        help="where to attack images: auto, cpu or cuda",
    )
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.experiments.result import write_atomically
    from autolora.report.collected import collect
    from autolora.report.examination import examine
    from autolora.report.page import render
    from autolora.training.precision import resolve_device

    device = resolve_device(options.device)
    runs = collect(options.runs)
    out = Path(options.out) if options.out is not None else runs[0].folder / REPORT if len(runs) == 1 else Path(REPORT)
    _check_out(out)
    examination = examine(
        runs, data=options.data, gallery=not options.no_gallery, device=device, progress=not options.quiet
    )
    page = render(runs, examination, _command(options))
    write_atomically(out, page)
    if not options.quiet:
        print(f"report  {out}  ({out.stat().st_size / 1e6:.1f} MB); open it in a browser")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""


def _command(options: Namespace) -> str:
    words = ["autolora", NAME, *map(quote, options.runs)]
    for name in ("out", "data"):
        words += [f"--{name}", quote(options[name])] if options[name] is not None else []
    return " ".join(words + ["--no-gallery"] * options.no_gallery)


def _check_out(out: Path) -> None:
    """Refuse a file that cannot be written, before anything slow begins."""
    if out.suffix.lower() not in SUFFIXES:
        given = repr(out.suffix) if out.suffix else "no suffix"
        raise InputError(f"--out {out} has {given}; a report is a file of HTML, so end its name in .html")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file")
