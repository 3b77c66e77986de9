"""``autolora compare``: finished runs in one table, with the tests that say which differences are real."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.config_files import runs_given
from autolora.cli.options import add_common
from autolora.cli.out_files import checked_out

NAME = "compare"
HELP = "finished runs side by side, with tests of their differences"
EPILOG = """examples:
  autolora compare runs/photos-autolora runs/photos-at        the same test images, one by one
  autolora compare runs/autolora-* runs/at-*                  several seeds of each: t-tests over seeds
  autolora compare runs/a runs/b --metric natural
  autolora compare runs/a runs/b --out comparison.md          or .json, .csv
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Compare finished runs on the same data under the same threat model. Runs that differ in nothing "
        "but the seed form a group; the first group is compared with every other.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("runs", nargs="*", type=str, default=[], metavar="RUN", help="run folders, two or more")
    parser.add_argument("--metric", type=str, default="all", help="one score, such as natural or pgd-10")
    parser.add_argument("--out", type=str | None, default=None, help="file to write as well: .json, .md or .csv")
    parser.add_argument("--json", action="store_true", help="for machines: print JSON instead of the table")
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.cli.comparison_formats import FORMATS, as_json, as_text
    from autolora.cli.summary import print_next
    from autolora.experiments.comparison import compare
    from autolora.experiments.result import write_atomically

    out = None if options.out is None else checked_out(options.out, list(FORMATS), "a comparison")
    runs = runs_given(options)
    comparison = compare(runs, options.metric)
    if out is not None:
        write_atomically(out, FORMATS[out.suffix.lower()](comparison))
    if options.json:
        print(as_json(comparison), end="")
    elif not options.quiet:
        print(f"\n{as_text(comparison)}")
        print_next(["autolora", "report", *runs], "the same as one page, with curves and images")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""
