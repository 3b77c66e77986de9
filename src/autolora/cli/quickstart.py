"""``autolora quickstart``: the main job on what the package holds, offline."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common, bars

NAME = "quickstart"
HELP = "the main job on handwritten digits, offline, in a few minutes"
SAMPLED = 50  # images attacked again for the report, which shall be a matter of seconds
EPILOG = """examples:
  autolora quickstart
  autolora quickstart --out runs/first
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Fine-tune the packaged robust backbone on handwritten digits with AutoLoRa, fine-tune it "
        "naturally beside it, and show both under the same attack: as a table, and as a report, RUN/report.html.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("--out", type=str | None, default=None, help="run folder (default: a new one, runs/quickstart)")
    parser.add_argument("--seed", type=int, default=0, help="seed of split, initialisation, order and attacks")
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.cli.summary import print_comparison
    from autolora.experiments.quickstart import quickstart
    from autolora.report.writing import REPORT, write_report

    progress = bars(options)
    robust, control = quickstart(options.out, seed=options.seed, progress=progress)
    report = write_report([robust.folder, control.folder], robust.folder / REPORT, progress=progress, sampled=SAMPLED)
    if not options.quiet:
        print_comparison(robust, control, report)


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return f"; start again with: autolora {NAME} --out DIR"
