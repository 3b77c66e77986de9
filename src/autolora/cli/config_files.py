"""Files after ``--config``, looked at before the parser reads them: a few lines of YAML can stand for gigabytes."""

from __future__ import annotations

from pathlib import Path

import yaml

from autolora.errors import InputError

LARGEST = 1_000_000  # bytes; that of a run has two thousand
MOST_VALUES = 10_000


def check_config(file: str) -> None:
    """Refuse a file that is too large for options, as it stands or with all that its aliases repeat.

    What is no YAML is left to the parser, which says where.

    Raises:
        InputError: If it is, or it cannot be read as text, or it contains itself.
    """
    path = Path(file)
    try:
        if not path.is_file():
            return
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"option --config: {file} is larger than {LARGEST:,} bytes; a file of options has a few")
        values = _values(yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader), {})
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


def _values(node: yaml.Node | None, counted: dict[int, int]) -> int:
    """Return how many values a node stands for; one that contains itself has no end."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = MOST_VALUES + 1  # while it is being counted: what asks for it then lies within it
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
