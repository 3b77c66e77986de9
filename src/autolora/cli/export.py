"""``autolora export``: a finished model as timm, ONNX Runtime, PEFT or RobustBench read it."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from autolora.cli.options import add_common, bars
from autolora.errors import InputError

NAME = "export"
HELP = "a finished model for timm, ONNX, PEFT or RobustBench"
EPILOG = """examples:
  autolora export runs/photos --format timm                   config.json, model.safetensors and a model card
  autolora export runs/photos --format onnx --out photos-onnx
  autolora export runs/photos-loft --format peft              the adapter, with the backbone it belongs to
  autolora export runs/cifar10 --format robustbench           the model, its claim, and the text of the issue
  autolora export runs/photos --format timm --push-to-hub ORG/NAME --private
"""


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Write a finished model as another tool reads it, with a model card of what was measured.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, or folder with a model in timm's format")
    parser.add_argument("--format", type=str | None, default=None, help="timm, onnx, peft or robustbench")
    parser.add_argument("--out", type=str | None, default=None, help="new folder (default: exports/NAME-FORMAT)")
    parser.add_argument(
        "--push-to-hub",
        type=str | None,
        default=None,
        metavar="ORG/NAME",
        help="upload it to Hugging Face's hub as well",
    )
    parser.add_argument("--private", action="store_true", help="with --push-to-hub: a repository only you can see")
    add_common(parser)
    return parser


def execute(options: Namespace) -> None:
    """Run the command."""
    from autolora.experiments.export import export
    from autolora.experiments.export.exporting import CARD

    if options.format is None:
        raise InputError("no --format given; use timm, onnx, peft or robustbench")
    folder = export(
        options.run,
        options.format,
        options.out,
        push_to_hub=options.push_to_hub,
        private=options.private,
        progress=bars(options),
    )
    if not options.quiet:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        print(f"folder     {folder}: {', '.join(files)}")
        if options.push_to_hub is not None:
            print(f"on the hub as {options.push_to_hub}")
        print(f"use it     {folder / CARD} says how, with code to copy")


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""
