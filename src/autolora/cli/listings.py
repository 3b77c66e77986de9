"""``autolora methods | models | datasets | presets``: what there is."""

from __future__ import annotations

import fnmatch
import io
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
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
        pattern: A ``--filter`` that finds some of them.
    """

    NAME: str
    HELP: str
    rows: Callable[[], list[Row]]
    pattern: str

    def parser(self, formatter: Any) -> ArgumentParser:
        """Return the parser of this command."""
        examples = ("", f" --filter '{self.pattern}'", " --json")
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
            print(f"{row['name'].ljust(width)}  {'  '.join(self.said(row))}".rstrip())

    def said(self, row: Row) -> list[str]:
        """Return what the list says beside a name."""
        return [text for key, text in row.items() if key != "name"]

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


class DatasetListing(Listing):
    """The list of data sets, which fetches one as well if it is asked to."""

    def parser(self, formatter: Any) -> ArgumentParser:
        """Return the parser of this command."""
        parser = super().parser(formatter)
        parser.add_argument(
            "--download", type=str | None, default=None, metavar="NAME", help="fetch this one, and check it"
        )
        parser.add_argument(
            "--data-root", type=str | None, default=None, help="where to ($AUTOLORA_DATA or ~/.cache/autolora/data)"
        )
        return parser

    def said(self, row: Row) -> list[str]:
        """Return what the list says beside a name: numbers with what they count."""
        counts = [f"{int(row[key]):,} {key}" for key in ("classes", "train", "test") if row[key]]
        return [text for text in (row["summary"], ", ".join(counts), row["size"], row["source"], row["terms"]) if text]

    def execute(self, options: Namespace) -> None:
        """Fetch a data set, or print the list."""
        if options.download is None:
            super().execute(options)
        else:
            from autolora.data import download

            with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):  # torchvision's bar
                folder = download(options.download, options.data_root)
            print(f"{options.download} is in {folder}")


def _methods() -> list[Row]:
    from autolora.methods import METHODS

    return [{"name": name, "paper": cls.paper, "summary": cls.summary()} for name, cls in METHODS.items()]


def _models() -> list[Row]:
    import timm

    from autolora.models import PACKAGED
    from autolora.models.checkpoints import FORMATS
    from autolora.models.checkpoints.salman import COLLECTION, REPOSITORY, summary_of

    packaged = {"name": PACKAGED, "weights": "in the package", "summary": "robust ResNet-20 for 32x32, the default"}
    files = [
        {"name": f"FILE ({name})", "weights": item.origin, "summary": f"--weights-format {name}"}
        for name, item in FORMATS.items()
    ]
    collection = [{"name": name, "weights": f"hub: {REPOSITORY}", "summary": summary_of(name)} for name in COLLECTION]
    return [packaged, *files, *collection, *(_timm_row(name) for name in timm.list_models())]


def _timm_row(name: str) -> Row:
    """Say whether timm has pre-trained weights of an architecture, and which on the Hugging Face hub it takes."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.has_weights:
        return {"name": name, "weights": "random", "summary": ""}
    return {"name": name, "weights": "pre-trained", "summary": f"hub: {config.hf_hub_id}" if config.hf_hub_id else ""}


def _datasets() -> list[Row]:
    from autolora.data import known_sets

    return known_sets()


def _presets() -> list[Row]:
    from autolora.experiments.presets import preset_names, preset_summary

    return [{"name": name, "summary": preset_summary(name)} for name in preset_names()]


COMMANDS = (
    MethodListing("methods", "training methods", _methods, "twins-*"),
    Listing("models", "models, and where their weights come from", _models, "*20*"),
    DatasetListing("datasets", "named data sets, and what DATA can be", _datasets, "cifar*"),
    Listing("presets", "presets: options that follow a published protocol", _presets, "aff-*"),
)
