"""Run folders as a run would write them, without having trained anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from autolora.evaluation import Score

CLASSES = ("ant", "bee", "moth")
CONFIG = {"data": "photos/", "model": "packaged", "method": "autolora", "eps": "8/255", "norm": "Linf", "epochs": 6}


def write_run(
    folder: Path,
    natural: int = 48,
    robust: int = 30,
    *,
    total: int = 60,
    classes: Sequence[str] = CLASSES,
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a finished run that is right on the first images; ``changes`` replace fields of ``result.json``."""
    options = {**CONFIG, "seed": 0, "out": str(folder), **(config or {})}
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    write_history(folder)
    columns = {"natural": first(natural, total), "pgd-10": first(robust, total)}
    content = {
        "status": "complete",
        "config": options,
        "environment": {"version": "0.1.0", "torch": "2.6.0", "device": "cpu (x86_64)", "threads": 1},
        "data": {
            "classes": list(classes),
            "train": 120,
            "val": 24,
            "test": total,
            "majority": 1 / 3,
            "fingerprint": "5" * 64,
            "notes": ["validation: 24 of 144 training images"],
        },
        "threat_model": {"norm": "Linf", "eps": "8/255", "radius": 8 / 255},
        "selected_on": "val",
        "selection": {"score": "val_robust", "epoch": 4, "accuracy": 0.5, "standard_error": 0.1},
        "epochs_run": 6,
        "scores": {name: score(right) for name, right in columns.items()},
        "seconds": 3725.0,
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(content))
    write_verdicts(folder / "evaluation", columns, np.arange(total), len(classes))
    return folder


def write_history(folder: Path, epochs: int = 6, terms: Mapping[str, float] | None = None) -> None:
    """Write a log whose rate falls to a half before epoch 4; ``terms`` join its loss terms."""
    rows = [
        {
            "epoch": epoch,
            "lr": 0.01 if epoch < 4 else 0.005,
            "lambda1": 0.6 - 0.05 * epoch,
            "lambda2": 3 + 0.2 * epoch,
            "natural": 1.5 / epoch,
            "consistency": 0.02 * epoch,
            **(terms or {}),
            "val_natural": 0.5 + 0.02 * epoch,
            "val_robust": 0.3 + 0.01 * epoch,
            "seconds": 30.0,
            "images_per_second": 80.0,
        }
        for epoch in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_evaluation(
    run: Path,
    name: str,
    right: Mapping[str, int],
    *,
    total: int = 60,
    label: str = "AA-adapted (K=3)",
    threat: str = "Linf 8/255",
    classes: int = 3,
    **changes: Any,
) -> Path:
    """Write what ``autolora evaluate`` leaves; the last of ``right`` is the attack, the first is ``natural``."""
    folder = run / "evaluation" / name
    folder.mkdir()
    columns = {attack: first(count, total) for attack, count in right.items()}
    scores = {attack: score(column) for attack, column in columns.items()}
    scores[list(right)[-1]] |= {"label": label, "flags": [], "after": {"apgd-ce": 0.5, "apgd-t": 0.4}}
    about = {"model": "m", "data": "5" * 64, "split": "test", "classes": list(CLASSES)}
    content = {"threat_model": threat, "images": total, "scores": scores, "circumstances": about, **changes}
    (folder / "evaluation.json").write_text(json.dumps(content))
    write_verdicts(folder, columns, np.arange(total), classes)
    return folder


def write_verdicts(
    folder: Path, columns: Mapping[str, NDArray[np.bool_]], index: NDArray[np.int64], classes: int
) -> None:
    """Write ``verdicts.csv``; labels take turns, and who is wrong is taken for the next class."""
    label = index % classes
    predicted = np.where(columns["natural"], label, (label + 1) % classes)
    rows = np.stack([index, label, predicted, *(column.astype(int) for column in columns.values())], axis=1)
    header = ",".join(("index", "label", "predicted", *columns))
    text = "\n".join([header, *(",".join(map(str, row)) for row in rows.tolist())])
    (folder / "verdicts.csv").write_text(f"{text}\n")


def first(count: int, total: int) -> NDArray[np.bool_]:
    """Be right on the first images."""
    return np.arange(total) < count


def score(right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a score as result.json holds it."""
    return Score(int(right.sum()), len(right)).as_json()
