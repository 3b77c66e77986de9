"""What the files of a run folder hold, for readers that trust none of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolora.errors import InputError
from autolora.experiments.result import CONFIG, RESULT

Images = tuple[tuple[str, str], ...]  # index and label of each, as written
Right = dict[str, NDArray[np.bool_]]  # by metric, whether the model is right on each image, (N,)


def read_result(folder: Path) -> Any:
    """Read ``result.json`` of a run folder.

    Raises:
        InputError: If there is none, or it is no JSON.
    """
    path = folder / RESULT
    if not path.is_file():
        if (folder / CONFIG).is_file():
            raise InputError(f"{folder} has no {RESULT}: the run is not finished; continue it with --resume first")
        raise InputError(f"{folder} has no {RESULT}; give the folder of a finished run, as --out named it")
    return read_json(path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:  # no JSON, no UTF-8, a wall of brackets
        raise InputError(f"{path} is damaged and cannot be read as JSON ({error}); write it again") from None


def require(content: Any, where: Path, names: Sequence[str], kind: Any) -> None:
    """Check that a nested field is there and of a kind.

    Raises:
        InputError: If it is not; the message names ``where``.
    """
    for name in names:
        if not isinstance(content, dict) or name not in content:
            raise InputError(f"{where} has no {'.'.join(names)}; it is not the result of a run of this package")
        content = content[name]
    if not isinstance(content, kind):
        raise InputError(f"{where} has {'.'.join(names)}={content!r}, which is of another kind; write it again")


def read_verdicts(path: Path) -> tuple[Images, Right]:
    """Read ``index,label,predicted`` and a column of 0 and 1 for every metric.

    Raises:
        InputError: If the file is missing, or anything else is in it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; without the verdict on every image runs cannot be compared")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (ValueError, csv.Error) as error:  # no UTF-8, no CSV
        raise InputError(f"{path} is damaged and cannot be read as CSV ({error}); evaluate the run again") from None
    for name in ("index", "label"):
        if name not in header:
            raise InputError(f"{path} has no column {name!r}; it has {', '.join(header) or 'none'}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{path} has {len(row)} cells in line {line}, not {len(header)}; evaluate the run again")
    if not rows:
        raise InputError(f"{path} has no verdicts; evaluate the run again")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    metrics = [name for name in header if name not in ("index", "label", "predicted")]
    images = tuple(zip(columns["index"], columns["label"], strict=True))
    return images, {name: _column(path, name, columns[name]) for name in metrics}


def _column(path: Path, name: str, cells: Sequence[str]) -> NDArray[np.bool_]:
    for line, cell in enumerate(cells, start=2):
        if cell not in ("0", "1"):
            raise InputError(f"{path} has {cell!r} under {name} in line {line}, where 0 or 1 belongs")
    return np.array([cell == "1" for cell in cells])


def check_scores(scores: Mapping[str, Any], where: Path, right: Right, verdicts: Path) -> None:
    """Check that scores are those that the verdicts add up to.

    Raises:
        InputError: If they are not, or a score is none.
    """
    for metric in scores:
        for name in ("correct", "total"):
            require({"scores": scores}, where, ("scores", metric, name), int)
        if metric not in right:
            continue
        told = scores[metric]["correct"], scores[metric]["total"]
        counted = int(right[metric].sum()), len(right[metric])
        if told != counted:
            raise InputError(
                f"{where} counts {told[0]} of {told[1]} images right under {metric}, {verdicts} {counted[0]} of "
                f"{counted[1]}; one of them was changed, so evaluate again"
            )
