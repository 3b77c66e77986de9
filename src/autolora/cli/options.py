"""Command-line options from the fields of :class:`RunConfig`, so that command line, YAML and Python never differ."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from autolora.cli.config_files import check_config
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, config_from
from autolora.experiments.presets import preset_file, preset_names
from autolora.experiments.result import CONFIG, SPLIT

WITH_PRESETS = ("fit", "pretrain", "plan")  # the commands that take the options of a run
SHOWN_FIRST = ("model", "weights", "method", "eps", "norm", "epochs", "batch_size", "image_size", "out", "seed")
GROUPS = {  # the rest of the options, under the heading that the help shows them under
    "model": ("weights_format", "adapter", "head", "upsample_to", "upsampling"),
    "method": ("method_options", "rank", "attack", "step_size", "gradient_similarity", "plugin"),
    "optimisation": ("schedule", "schedule_options", "lr", "momentum", "weight_decay", "reset_momentum"),
    "data": ("val_fraction", "label_fraction", "classes", "augmentation", "data_root", "skip_bad_images"),
    "machine": (
        *("device", "precision", "compile", "workers", "sync_batch_norm", "shard"),
        *("deterministic", "checkpoint_minutes", "track"),
    ),
}


def config_parser(
    formatter: Any,
    *,
    description: str,
    epilog: str,
    defaults: Mapping[str, Any] | None = None,
    resumable: bool = True,
) -> ArgumentParser:
    """Make a parser with an option for every field of the run configuration.

    Args:
        formatter: Help formatter.
        description: What the command does.
        epilog: Worked examples.
        defaults: Defaults of this command where they differ from the configuration's.
        resumable: Whether the command has ``--resume``.
    """
    parser = ArgumentParser(description=description, epilog=epilog, exit_on_error=False, formatter_class=formatter)
    hints = get_type_hints(RunConfig)
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    shown = {name: groups[title] for title, names in GROUPS.items() for name in names}
    for item in sorted(fields(RunConfig), key=_order):
        default = (defaults or {}).get(item.name, item.default)
        _add(shown.get(item.name, parser), item, hints[item.name], default)
    if resumable:
        text = "continue the run in the folder from its last checkpoint"
        parser.add_argument("--resume", action="store_true", help=text)
    known = ", ".join(preset_names())
    text = f"options of a published protocol ({known}); --config and command line win"
    parser.add_argument("--preset", metavar="NAME", action=_InFrontOnly, default=SUPPRESS, help=text)
    add_common(parser)
    return parser


def add_common(parser: ArgumentParser) -> None:
    """Add what every command has."""
    parser.add_argument("--quiet", action="store_true", help="no progress and no messages, only warnings and errors")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options; the command line wins")


def bars(options: Namespace) -> bool:
    """Return whether progress bars are drawn: not under ``--quiet``, and not into a file or the log of a CI."""
    return not options.quiet and sys.stderr.isatty()


def to_config(options: Namespace) -> RunConfig:
    """Return the run configuration of parsed options.

    Raises:
        InputError: If it cannot work.
    """
    if "preset" in options:  # only from a file: the command line's has become one
        raise InputError("config key 'preset' belongs on the command line; give --preset NAME beside --config")
    return config_from({item.name: options[item.name] for item in fields(RunConfig)})


def resume_hint(command: str, options: Namespace) -> str:
    """Say how to go on after an interruption."""
    from autolora.experiments.run_folder import how_far, resume_command

    folder = to_config(options).folder
    if not (folder / CONFIG).is_file():
        return " before anything was written"
    when = how_far(folder) or "before the first epoch was finished"
    return f" {when}; continue with: {resume_command(folder, command)}"


def config_first(argv: list[str]) -> list[str]:
    """Move ``--config FILE`` behind the command, so that options on the command line win wherever they stand.

    The file that ``--preset NAME`` stands for goes in front of them, so that they win over it. A run that is to go on
    goes on where its file lies, also after its folder was moved or copied.

    Raises:
        InputError: If a preset is unknown, there is more than one, or a file stands for too much.
    """
    files, words = _take("--config", argv)
    for file in files:
        check_config(file)
    presets, rest = _take("--preset", words)
    if rest[:1] and rest[0] in WITH_PRESETS:
        words = rest
        if len(presets) > 1:
            raise InputError(f"presets {' and '.join(presets)} are given; each is a whole protocol, so give one")
        words = words + _of_run(files, words)
        files = [str(preset_file(name)) for name in presets] + files
    return words[:1] + [f"--config={file}" for file in files] + words[1:]


def _of_run(files: list[str], words: list[str]) -> list[str]:
    """Return ``--out`` for the run whose own file is given to go on with; none where there is one, or no such run."""
    if "--resume" not in words or not files or _take("--out", words)[0]:
        return []
    file = Path(files[-1])
    begun = (file.parent / SPLIT).is_file() or (file.parent / "checkpoints").is_dir()
    return [f"--out={file.parent}"] if file.name == CONFIG and begun else []


def _take(flag: str, argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the values of an option, written as ``FLAG VALUE`` or ``FLAG=VALUE``, and all other words."""
    values: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == flag and (value := list(islice(words, 1))):
            values += value
        elif word.startswith(f"{flag}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return values, rest


class _InFrontOnly(Action):
    """Shows ``--preset`` in the help; :func:`config_first` has replaced it wherever it can stand."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Refuse what is left: an abbreviation."""
        parser.error(f"option {option_string}: write it as --preset NAME")


def _order(item: Field[Any]) -> tuple[bool, int]:
    shown = item.name in SHOWN_FIRST
    return (item.name != "data", SHOWN_FIRST.index(item.name) if shown else len(SHOWN_FIRST))


def _add(parser: Any, item: Field[Any], kind: Any, default: Any) -> None:
    text = item.metadata["help"]
    if default is not item.default and item.default is None:  # the command's own takes the place of what is found out
        text = text.partition(" (default: ")[0]
    if default is MISSING:
        parser.add_argument(item.name, metavar=item.name.upper(), help=text)
    elif kind is bool:
        parser.add_argument(_flag(item.name), action="store_true", help=text)
    else:
        parser.add_argument(_flag(item.name), type=kind, default=default, help=text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
