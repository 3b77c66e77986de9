"""``autolora doctor``: look at a model, its data and a radius before hours are spent on them."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common, bars

if TYPE_CHECKING:
    from autolora.experiments.diagnosis import Diagnosis, Finding

NAME = "doctor"
HELP = "what is wrong with model, data or eps, before hours are spent"
EPILOG = """examples:
  autolora doctor runs/photos                                  a run, on its own data
  autolora doctor packaged --data cifar10.zip
  autolora doctor resnet20_cifar --weights weights.th --data cifar10.zip --eps 1/255
  autolora doctor packaged --data cifar10.zip --eps 0.5 --norm L2
  autolora doctor runs/photos --json                           for machines

exit codes: 0 nothing that makes a result worthless, 1 something that does, 2 a mistake in the command
"""
SOUND, FOUND = 0, 1
NARROWEST, WIDEST = 80, 120  # columns of the list, whatever the terminal has


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Examine MODEL, the images of DATA and the radius eps, and say what is wrong with them.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    model_help = "run folder, folder with a model in timm's format, packaged, timm name, or checkpoint file"
    parser.add_argument("model", metavar="MODEL", type=str, help=model_help)
    data_help = "folder of class folders, archive of one, or named set (default: that of the run)"
    parser.add_argument("--data", type=str | None, default=None, help=data_help)
    root_help = "folder of the named data sets (default: the run's, $AUTOLORA_DATA, or ~/.cache/autolora/data)"
    parser.add_argument("--data-root", type=str | None, default=None, help=root_help)
    parser.add_argument(
        "--eps", type=str | None, default=None, help="radius in pixel units (default: the run's, or 8/255)"
    )
    norm_help = "norm of the threat model: Linf or L2 (default: the run's, or Linf)"
    parser.add_argument("--norm", type=Literal["Linf", "L2"] | None, default=None, help=norm_help)
    split_help = "images that the model is judged on: test, val or train"
    parser.add_argument("--split", type=str, default="test", help=split_help)
    weights_help = "for a timm name: auto, pretrained, none (random), or a checkpoint file"
    parser.add_argument("--weights", type=str, default="auto", help=weights_help)
    parser.add_argument("--weights-format", type=str, default="auto", help="of the checkpoint file; auto recognises it")
    size_help = "side in pixels that images are brought to (default: the model's own)"
    parser.add_argument("--image-size", type=int | None, default=None, help=size_help)
    parser.add_argument("--limit", type=int, default=1000, help="judge a stratified sample of so many images")
    seed_help = "seed of the sample, and without a run of data that come undivided (default: the run's, or 0)"
    parser.add_argument("--seed", type=int | None, default=None, help=seed_help)
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--json", action="store_true", help="for machines: an object with all numbers, names and pairs")
    add_common(parser)
    return parser


def execute(options: Namespace) -> int:
    """Run the command; return the exit code, 1 if there is a problem."""
    from autolora.cli.summary import print_next
    from autolora.experiments.doctor import run_doctor

    diagnosis = run_doctor(
        options.model,
        data=options.data,
        data_root=options.data_root,
        eps=options.eps,
        norm=options.norm,
        split=options.split,
        weights=options.weights,
        weights_format=options.weights_format,
        image_size=options.image_size,
        limit=options.limit,
        seed=options.seed,
        device=options.device,
        progress=bars(options),
    )
    if options.json:
        print(json.dumps(diagnosis.as_json(), indent=2, allow_nan=False))
    elif not options.quiet:
        columns = shutil.get_terminal_size().columns
        print(as_text(diagnosis, min(max(columns, NARROWEST), WIDEST)))
        if not diagnosis.named("problem"):
            print()
            print_next(*_next(options))
    return FOUND if diagnosis.named("problem") else SOUND


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""


def _next(options: Namespace) -> tuple[list[str], str]:
    """Return what to type when nothing is wrong, and what for."""
    names = ("weights", "weights_format", "data_root", "image_size", "eps", "norm")
    given = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in names]
    words = [word for flag, value in given if value not in (None, "auto") for word in (flag, str(value))]
    if options.weights not in ("auto", "none", "pretrained") or Path(options.model).exists():  # it was trained already
        data = [] if options.data is None else ["--data", options.data]
        split = [] if options.split == "test" else ["--split", options.split]
        return ["autolora", "evaluate", options.model, *data, *split, *words], "how robust it is, by AutoAttack"
    return ["autolora", "fit", options.data, "--model", options.model, *words], "fine-tune it on these images"


def as_text(diagnosis: Diagnosis, width: int) -> str:
    """Return a list of the checks, in lines of at most ``width`` columns, and the sentence that sums them up."""
    title = f"{diagnosis.model} on {diagnosis.data}, {diagnosis.threat}, {diagnosis.images}:"
    names = max(len(finding.name) for finding in diagnosis.findings)
    rows = [line for finding in diagnosis.findings for line in _lines(finding, names, width)]
    return "\n".join(["", title, "", *rows, "", *_wrapped(diagnosis.verdict, width)])


def _lines(finding: Finding, names: int, width: int) -> list[str]:
    start = f"  {finding.status:<{len('problem')}}  {finding.name:<{names}}  "
    indent = " " * len(start)
    found = _wrapped(finding.found, width, start, indent)
    return found + (_wrapped(finding.advice, width, f"{indent}-> ", f"{indent}   ") if finding.advice else [])


def _wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,  # a path that is cut is no path
    )
