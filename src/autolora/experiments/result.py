"""``result.json``: what a run found, with the circumstances needed to understand and repeat it. No torch here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT, METRICS, CONFIG, SPLIT = "result.json", "metrics.jsonl", "config.yaml", "split.json"
EVALUATION, VERDICTS, SHARDS = "evaluation.json", "verdicts.csv", "shards"  # of an evaluation, the last a folder


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: The run folder.
        content: What ``result.json`` holds; see ``docs/run-folder.md`` for its fields.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Return the test scores by attack: ``accuracy`` in [0, 1], ``correct``, ``total`` and ``ci95``."""
        return self.content["scores"]

    def accuracy(self, attack: str = "natural") -> float:
        """Return the test accuracy in [0, 1], ``"natural"`` or under an attack such as ``"pgd-10"``.

        Raises:
            KeyError: If the run was not evaluated so.
        """
        return float(self.scores[attack]["accuracy"])

    @classmethod
    def read(cls, folder: str | Path) -> RunResult:
        """Read the result of a run folder.

        Raises:
            FileNotFoundError: If the run has no result: it is not finished.
        """
        return cls(Path(folder), json.loads((Path(folder) / RESULT).read_text(encoding="utf-8")))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, finds the old content or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; a NaN is refused, since readers of other languages cannot parse it."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_metrics(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write ``metrics.jsonl``: one line of JSON per finished epoch."""
    write_atomically(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
