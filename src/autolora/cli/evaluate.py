"""``autolora evaluate``: how robust a model is, with a verdict for every image."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common, bars
from autolora.cli.sharing import shared
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.result import RESULT

if TYPE_CHECKING:  # torch is slow to import, and help has no use for it
    from autolora.experiments.processes import Processes

NAME = "evaluate"
SAME = ("data", "data_root", "split", "norm", "weights", "weights_format", "image_size")  # what is judged, of whom
HELP = "how robust a model is: AutoAttack, PGD, several radii"
EPILOG = """examples:
  autolora evaluate runs/photos                                AutoAttack on its test images
  autolora evaluate runs/photos --fast                         an upper bound, in a fraction of the time
  autolora evaluate runs/photos --attack pgd-20 --restarts 5 --limit 1000
  autolora evaluate runs/photos --attack pgd-20 --eps 8/255 --eps 4/255 --out runs/photos/evaluation/curve
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
    shared(options.device, partial(_execute, options))


def _execute(options: Namespace, processes: Processes) -> None:
    from autolora.cli.summary import print_evaluation, print_next
    from autolora.experiments.evaluating import run_evaluation

    config = processes.agree(partial(_config, options))
    content = run_evaluation(config, resume=options.resume, progress=bars(options), processes=processes)
    if processes.first and not options.quiet:
        print_evaluation(config.folder, content)
        print_next(*_next(config))


def _next(config: EvaluationConfig) -> tuple[list[str], str]:
    """Return what to type after an evaluation, and what for."""
    if "autoattack" not in config.attacks and config.engine == "own":
        words = _given(config, *SAME, "eps", "eps_in")
        return ["autolora", "evaluate", config.model, *words], "AutoAttack: all of its attacks, on all images"
    if (Path(config.model) / RESULT).is_file() and config.folder.parent == Path(config.model, "evaluation"):
        return ["autolora", "report", config.model], "one page about the run, with this in it"
    pixels = config.eps[:1] if config.eps_in == "pixels" else ()  # the doctor knows no other unit, and one radius
    words = _given(replace(config, eps=pixels), *SAME, "eps")
    return ["autolora", "doctor", config.model, *words], "is anything wrong with model, data or eps?"


def _given(config: EvaluationConfig, *names: str) -> list[str]:
    """Return the options of these names that say something else than their default."""
    words: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in names and value != item.default:
            for part in value if isinstance(value, tuple) else (value,):
                words += [f"--{item.name.replace('_', '-')}", str(part)]
    return words


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption."""
    return f"; what was judged is kept: give the same command again with --resume --out {_config(options).folder}"


def _config(options: Namespace) -> EvaluationConfig:
    hints = get_type_hints(EvaluationConfig)
    values: dict[str, Any] = {item.name: options[item.name] for item in fields(EvaluationConfig)}
    return EvaluationConfig(**{name: _several(value, hints[name]) for name, value in values.items()})


def _several(value: Any, hint: Any) -> Any:
    """Make a tuple of an option that repeats; a file may give it once, and radii as numbers."""
    if hint != tuple[str, ...]:
        return value
    parts = value if isinstance(value, list) else [value]
    return tuple(str(part) if type(part) in (int, float) else part for part in parts)
