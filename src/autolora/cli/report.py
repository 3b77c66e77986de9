"""``autolora report``: one run or several as a single HTML file."""

from __future__ import annotations

from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.config_files import runs_given
from autolora.cli.options import add_common, bars

NAME = "report"
HELP = "one HTML file about a run, or about several side by side"
EPILOG = """examples:
  autolora report runs/photos                            writes runs/photos/report.html
  autolora report runs/photos-autolora runs/photos-at    side by side, into report.html
  autolora report runs/photos --out photos.html --data elsewhere/photos.zip
  autolora report runs/photos --no-gallery               without loading the images
"""


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
    from autolora.report.writing import write_report

    out = write_report(
        runs_given(options),
        options.out,
        data=options.data,
        gallery=not options.no_gallery,
        device=options.device,
        progress=bars(options),
    )
    if not options.quiet:
        print(f"report  {out}  ({out.stat().st_size / 1e6:.1f} MB); open it in a browser")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""
