"""``autolora methods | models | datasets | presets``: what there is."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace

Row = dict[str, str]


@dataclass(frozen=True)
class Listing:
    """A command that prints a list.

    Args:
        NAME: Name of the command.
        HELP: What it lists.
        rows: Gives the rows, each with at least ``name``.
    """

    NAME: str
    HELP: str
    rows: Callable[[], list[Row]]

    def parser(self, formatter: Any) -> ArgumentParser:
        """Return the parser of this command."""
        examples = ("", " --filter '*20*'", " --json")
        epilog = "examples:\n" + "".join(f"  autolora {self.NAME}{options}\n" for options in examples)
        parser = ArgumentParser(
            description=f"List {self.HELP}.", epilog=epilog, exit_on_error=False, formatter_class=formatter
        )
        parser.add_argument("--json", action="store_true", help="for machines: a list of objects")
        parser.add_argument("--filter", type=str, default="*", help="only names that match, with * and ?")
        return parser

    def execute(self, options: Namespace) -> None:
        """Print the list."""
        rows = [row for row in self.rows() if fnmatch.fnmatch(row["name"], options.filter)]
        if options.json:
            print(json.dumps(rows, indent=2))
            return
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            print(
                f"{row['name'].ljust(width)}  {'  '.join(text for key, text in row.items() if key != 'name')}".rstrip()
            )

    def resume_hint(self, options: Namespace) -> str:
        """Say how to go on after an interruption: there is nothing to continue."""
        return ""


class MethodListing(Listing):
    """The list of methods, with those of a file of the user's if one is named."""

    def parser(self, formatter: Any) -> ArgumentParser:
        """Return the parser of this command."""
        parser = super().parser(formatter)
        parser.add_argument("--plugin", type=str | None, default=None, help="Python file whose methods to list as well")
        return parser

    def execute(self, options: Namespace) -> None:
        """Import the plugin, and print the list."""
        if options.plugin is not None:
            from autolora.experiments.plugins import load_plugin

            load_plugin(options.plugin)
        super().execute(options)


def _methods() -> list[Row]:
    from autolora.methods import METHODS

    # a class of the user's may have no docstring
    return [
        {"name": name, "paper": cls.paper, "summary": cls.summary() if (cls.__doc__ or "").strip() else ""}
        for name, cls in METHODS.items()
    ]


def _models() -> list[Row]:
    import timm

    from autolora.models import PACKAGED

    packaged = {"name": PACKAGED, "weights": "in the package", "summary": "robust ResNet-20 for 32x32, the default"}
    pretrained = set(timm.list_models(pretrained=True))
    tagged = {name.split(".")[0] for name in pretrained}
    return [packaged] + [
        {"name": name, "weights": "pre-trained" if name in tagged else "random", "summary": ""}
        for name in timm.list_models()
    ]


def _datasets() -> list[Row]:
    from autolora.data import NAMED_SETS

    rows = [{"name": name, "summary": named.summary} for name, named in NAMED_SETS.items()]
    return [*rows, {"name": "FOLDER or ARCHIVE", "summary": "class folders, or train/ [val/] test/ of class folders"}]


def _presets() -> list[Row]:
    from autolora.experiments.presets import preset_names, preset_summary

    return [{"name": name, "summary": preset_summary(name)} for name in preset_names()]


COMMANDS = (
    MethodListing("methods", "training methods", _methods),
    Listing("models", "models: every one of timm, and the packaged one", _models),
    Listing("datasets", "named data sets, and what DATA can be", _datasets),
    Listing("presets", "presets: options that follow a published protocol", _presets),
)
