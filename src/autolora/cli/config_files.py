"""Files after ``--config``, looked at before the parser reads them: a few lines of YAML can stand for gigabytes."""

from __future__ import annotations

from pathlib import Path

import yaml
from jsonargparse import Namespace

from autolora.errors import InputError
from autolora.experiments.result import CONFIG
from autolora.paths import expanded

LARGEST = 1_000_000  # bytes; that of a run has two thousand
MOST_VALUES = 10_000


def check_config(file: str) -> None:
    """Refuse a file that is too large for options, as it stands or with all that its aliases repeat.

    What is no YAML is left to the parser, which says where.

    Raises:
        InputError: If it is, or it cannot be read as text, contains itself, names an option twice, or is a folder.
    """
    path = Path(file)
    try:
        if path.is_dir():
            hint = f"; did you mean {path / CONFIG}?" if (path / CONFIG).is_file() else "; name a YAML file of options"
            raise InputError(f"option --config: {file} is a folder{hint}")
        if not path.is_file():
            return
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"option --config: {file} is larger than {LARGEST:,} bytes; a file of options has a few")
        root = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        values = _values(root, {})
    except OSError as error:
        raise InputError(f"option --config: {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"option --config: {file} is no text in UTF-8; give a YAML file of options") from None
    except yaml.YAMLError:
        return
    except RecursionError:
        raise InputError(f"option --config: {file} is nested too deeply for options") from None
    if values > MOST_VALUES:
        raise InputError(
            f"option --config: {file} stands for more than {MOST_VALUES:,} values; a file of options has a few"
        )

    if (twice := _twice(root)) is not None:
        raise InputError(f"option --config: {file} gives {twice} twice; keep the one that is meant")


def runs_given(options: Namespace) -> list[str]:
    """Return the run folders of the command line, or those that a file of options names.

    The parser takes a command line without any for an empty list, which would win over the file.
    """
    found: list[str] = options.runs
    for file in reversed(options.config or []) if not found else ():
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8-sig"))
        found = found or content.get("runs", [])
    return [str(expanded(run)) for run in found]


def _twice(node: yaml.Node | None) -> str | None:
    """Return a key that stands twice in a dictionary, of which YAML's reader would take the last without a word."""
    if isinstance(node, yaml.ScalarNode) or node is None:
        return None
    if isinstance(node, yaml.SequenceNode):
        return next((found for part in node.value if (found := _twice(part)) is not None), None)
    keys = [str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
        return repr(twice[0])
    return next((found for _, part in node.value if (found := _twice(part)) is not None), None)


def _values(node: yaml.Node | None, counted: dict[int, int]) -> int:
    """Return how many values a node stands for; one that contains itself has no end."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = MOST_VALUES + 1  # while it is being counted: what asks for it then lies within it
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
