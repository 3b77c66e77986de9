"""``autolora evaluate``: how robust a model is, with a verdict for every image."""

from __future__ import annotations

import logging
from dataclasses import MISSING, fields
from functools import partial
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from types import FrameType
from typing import TYPE_CHECKING, Any, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common
from autolora.experiments.evaluation_config import EvaluationConfig

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.processes import Processes

NAME = "evaluate"
HELP = "how robust a model is: AutoAttack, PGD, several radii"
EPILOG = """examples:
  autolora evaluate runs/photos                                AutoAttack on its test images
  autolora evaluate runs/photos --fast                         an upper bound, in a fraction of the time
  autolora evaluate runs/photos --attack pgd-20 --restarts 5 --limit 1000
  autolora evaluate runs/photos --attack pgd-20 --eps 2/255 --eps 4/255 --eps 8/255
  autolora evaluate resnet20_cifar --weights weights.th --data cifar10.zip --eps 1/255
  autolora evaluate runs/photos --out runs/photos/aa --resume  continue one that stopped
  torchrun --nproc-per-node 2 -m autolora evaluate runs/photos   two processes share the images
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Attack MODEL on held-out images, and say how many it still gets right.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    hints = get_type_hints(EvaluationConfig)
    for item in fields(EvaluationConfig):
        flag, text, kind = "--" + item.name.replace("_", "-"), item.metadata["help"], hints[item.name]
        if item.default is MISSING:
            parser.add_argument(item.name, metavar=item.name.upper(), help=text)
        elif kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif kind == tuple[str, ...]:
            parser.add_argument(flag, action="append", default=[], help=text)
        else:
            parser.add_argument(flag, type=kind, default=item.default, help=text)
    parser.add_argument("--resume", action="store_true", help="continue the evaluation in the folder")
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command. Of several processes that share it, the first speaks for all."""
    from autolora.experiments.processes import disband, joined

    try:
        with joined(options.device) as processes:
            (_execute if processes.count == 1 else _share)(options, processes)
    finally:
        disband()


def _share(options: Namespace, processes: Processes) -> None:
    from autolora.cli import USAGE, ended_by
    from autolora.experiments.processes import ToldElsewhere

    for number in (SIGINT, SIGTERM):
        signal(number, _end_once)
    if not processes.first:
        logging.getLogger("autolora").setLevel(logging.ERROR)
    try:
        _execute(options, processes)
    except ToldElsewhere:
        raise SystemExit(USAGE) from None
    except KeyboardInterrupt as end:
        if processes.first:
            raise
        raise SystemExit(ended_by(end)) from None
    finally:
        _stop_listening()


def _execute(options: Namespace, processes: Processes) -> None:
    from autolora.cli.summary import print_evaluation
    from autolora.experiments.evaluating import run_evaluation

    config = processes.agree(partial(_config, options))
    content = run_evaluation(config, resume=options.resume, progress=not options.quiet, processes=processes)
    if processes.first and not options.quiet:
        print_evaluation(config.folder, content)


def _end_once(number: int, frame: FrameType | None) -> None:
    from autolora.cli import Terminated

    _stop_listening()
    raise Terminated if number == SIGTERM else KeyboardInterrupt


def _stop_listening() -> None:
    """Ignore further signals: a terminal signals all processes, and their launcher once more when one has ended."""
    for number in (SIGINT, SIGTERM):
        signal(number, SIG_IGN)


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return f"; what was judged is kept: give the same command again with --resume --out {_config(options).folder}"


def _config(options: Namespace) -> EvaluationConfig:
    hints = get_type_hints(EvaluationConfig)
    values: dict[str, Any] = {item.name: options[item.name] for item in fields(EvaluationConfig)}
    for name in values:
        if hints[name] == tuple[str, ...]:
            values[name] = tuple(values[name])
    return EvaluationConfig(**values)
