"""``autolora params``: how many parameters a low-rank branch adds to a model, and the ratios that papers print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from autolora.errors import InputError

if TYPE_CHECKING:
    from autolora.models.counting import ParameterCounts

NAME = "params"
HELP = "low-rank parameter counts and ratios of a model"
EPILOG = """examples:
  autolora params resnet18 --rank 2 4 8 16                       the ratios in table 4 of AutoLoRa
  autolora params resnet18_cifar --style peft --rank 2 4 8 16    those in table IV of LoFT
  autolora params vit_small_patch16_224 --rank 8 --json
  autolora params runs/photos --targets last-block               a finished run, with its own classes
"""
CIFAR10_CLASSES = 10
COLUMNS = ("rank", "LoRA", "LoRA / FE", "LoRA / (FE + LoRA)", "table 4")
LEGEND = (
    "LoRA                parameters of all pairs A and B",
    "LoRA / FE           over those of the feature extractor, the model without its head",
    "LoRA / (FE + LoRA)  trainable over all parameters, as PEFT prints it: LoFT's counting, head left out",
)


def parser(formatter: Any) -> ArgumentParser:
    """Return the parser of this command."""
    parser = ArgumentParser(
        description="Count the parameters of a low-rank branch of MODEL and print their ratios to the model's own. "
        "No weights are needed, and none are fetched.",
        epilog=EPILOG,
        exit_on_error=False,
        formatter_class=formatter,
    )
    model_help = "a timm name, 'packaged', or the folder of a finished run"
    parser.add_argument("model", metavar="MODEL", nargs="?", default=None, help=model_help)
    rank_help = "rank of the pairs; several numbers give a table"
    parser.add_argument("--rank", type=str, nargs="+", default=["8"], metavar="N", help=rank_help)
    style_help = "form of the pairs: loralib (AutoLoRa) or peft (LoFT)"
    parser.add_argument("--style", type=str, default="loralib", metavar="loralib|peft", help=style_help)
    targets_help = (
        "layers that carry a pair: blocks (all but stem and head), all (the stem too), last-block (of each stage), or "
        "names of layers with commas between them (default: blocks for loralib, all for peft)"
    )
    parser.add_argument("--targets", type=str | None, default=None, metavar="blocks|all|last-block", help=targets_help)
    classes_help = f"classes of the head (default: those of the run, else CIFAR-10's {CIFAR10_CLASSES})"
    parser.add_argument("--num-classes", type=str | None, default=None, metavar="N", help=classes_help)
    size_help = "side of the input in pixels, which changes the size of some transformers (default: the model's own)"
    parser.add_argument("--image-size", type=str | None, default=None, metavar="N", help=size_help)
    parser.add_argument("--json", action="store_true", help="for machines: an object, or a list for several ranks")
    return parser


def execute(options: Namespace) -> None:
    """Count, and print a table or JSON.

    Raises:
        InputError: If the model is unknown, or an option cannot work with it.
    """
    if options.model is None:
        raise InputError(
            "no MODEL given in front of the options: a timm name such as resnet18, 'packaged', or the folder of a "
            "finished run"
        )
    ranks = [_number("rank", text) for text in options.rank]
    classes = _classes(options)
    size = None if options.image_size is None else _number("image-size", options.image_size)
    # here, since torch takes seconds to import and help needs none of it
    from autolora.models.counting import PAPER_TARGETS, build_on_meta, count_parameters

    model = build_on_meta(options.model, classes=classes, image_size=size)
    targets = PAPER_TARGETS.get(options.style) if options.targets is None else _targets(options.targets)
    counts = {rank: count_parameters(model, rank, options.style, targets) for rank in ranks}
    circumstances = {
        "model": options.model,
        "style": options.style,
        "targets": targets,
        "num_classes": classes,
        "image_size": model.architecture.input_size[-1],
    }
    print(_as_json(counts, circumstances) if options.json else _as_table(counts, circumstances))


def resume_hint(options: Namespace) -> str:
    """Say how to go on after an interruption: there is nothing to continue."""
    return ""


def _number(option: str, text: str) -> int:
    # not left to the parser, whose complaints about a list or an optional number are about Python's types
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"option --{option}: {text!r} is not a whole number of 1 or more")
    return int(text)


def _classes(options: Namespace) -> int:
    """Return the classes asked for, else a finished run's own, else CIFAR-10's, as in the papers' tables."""
    if options.num_classes is not None:
        return _number("num-classes", options.num_classes)
    from autolora.models.bundle import bundle_classes

    folders = [folder for folder in (Path(options.model), Path(options.model, "model")) if _holds_model(folder)]
    return len(bundle_classes(folders[0]) if folders else ()) or CIFAR10_CLASSES


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _targets(text: str) -> str | list[str]:
    """Read layer names, which hold dots or have commas between them, apart from the words for a choice of layers."""
    return text.split(",") if "," in text or "." in text else text


def _as_json(counts: dict[int, ParameterCounts], circumstances: dict[str, Any]) -> str:
    rows = [{**circumstances, "rank": rank, **asdict(count)} for rank, count in counts.items()]
    return json.dumps(rows if len(rows) > 1 else rows[0], indent=2)


def _as_table(counts: dict[int, ParameterCounts], circumstances: dict[str, Any]) -> str:
    count = next(iter(counts.values()))
    head = count.total_params - count.fe_params
    targets, size = circumstances["targets"], circumstances["image_size"]
    rows = [COLUMNS, *(_cells(rank, count) for rank, count in counts.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        f"{circumstances['model']} at {size}x{size} with {circumstances['num_classes']} classes, "
        f"{circumstances['style']} pairs, targets {targets if isinstance(targets, str) else ', '.join(targets)}",
        f"feature extractor (FE): {count.fe_params:,} parameters; with the head {count.total_params:,}",
        "",
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
        "",
        *LEGEND,
        f'table 4             AutoLoRa\'s counting: LoRA, norms named "bn" ({count.bn_params:,}) and head ({head:,}), '
        "over FE and head",
    ]
    return "\n".join(lines)


def _cells(rank: int, count: ParameterCounts) -> tuple[str, ...]:
    percent = (count.lora_over_fe_percent, count.lora_over_total_percent, count.table4_percent)
    return (str(rank), f"{count.lora_params:,}", *(f"{value:.3f}%" for value in percent))
