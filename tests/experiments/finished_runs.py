"""Folders of finished runs as a run writes them, with as many test images right as a test wants: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from autolora.experiments.suites.grid import Job, Plan, plan
from autolora.experiments.suites.reading import read_suite
from autolora.experiments.suites.store import Store

IMAGES = 200
BY_HAND = {"autolora": (0.50, 0.52, 0.54), "vanilla-rft": (0.47, 0.48, 0.49), "twins-trades": (0.505, 0.52, 0.525)}


class Finished:
    """Writes the folders of finished runs as a run does, so many test images right by the first of them."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(
        self,
        job: Job,
        robust: float,
        natural: float = 0.8,
        rows: Sequence[Mapping[str, float]] = (),
        fingerprint: str = "0" * 64,
        seconds: float = 60.0,
        note: str = "validation: 10 of 40",
        images: int = IMAGES,
        environment: Mapping[str, Any] | None = None,
    ) -> Path:
        folder = self.store.path(job)
        right = {"natural": [1] * round(images * natural), "pgd-10": [1] * round(images * robust)}
        right = {name: ones + [0] * (images - len(ones)) for name, ones in right.items()}
        model = {} if job.backbone is None else {"model": str(self.store.path(job.backbone))}
        classes = str(job.options.get("classes", "a,b")).split(",")
        content = {
            "status": "complete",
            "config": {"schedule": "auto", **job.options, **model, "data": "photos.zip", "out": str(folder)},
            "environment": {"device": "cpu", "precision": "fp32", **(environment or {})},
            "data": {"classes": classes, "fingerprint": fingerprint, "notes": [note]},
            "threat_model": {"norm": "Linf", "eps": "8/255", "radius": 8 / 255},
            "selected_on": "val",
            "seconds": seconds,
            "scores": {
                name: {"accuracy": sum(ones) / images, "correct": sum(ones), "total": images}
                for name, ones in right.items()
            },
        }
        (folder / "evaluation").mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(content))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = ["index,label,predicted,natural,pgd-10"]
        lines += [f"{n},{n % 2},0,{right['natural'][n]},{right['pgd-10'][n]}" for n in range(images)]
        (folder / "evaluation" / "verdicts.csv").write_text("\n".join(lines) + "\n")
        return folder


def attacked(folder: Path, right: Sequence[int], named: str = "autoattack", first: int = 0) -> None:
    """Write what ``autolora evaluate --limit`` does: verdicts on every other test image, by how they end.

    Args:
        folder: Of the run.
        right: The verdicts.
        named: The folder of the evaluation.
        first: The first of the test images, an even number.
    """
    result = json.loads((folder / "result.json").read_text())
    path = folder / "evaluation" / named
    path.mkdir()
    lines = [f"{first + 2 * n},0,0,{verdict}" for n, verdict in enumerate(right)]
    (path / "verdicts.csv").write_text("\n".join(["index,label,predicted,autoattack", *lines]) + "\n")
    score = {"correct": sum(right), "total": len(right), "label": "a sample's"}
    about = {"data": result["data"]["fingerprint"], "split": "test"}
    content = {"threat_model": "Linf 8/255", "circumstances": about, "scores": {"autoattack": score}}
    (path / "evaluation.json").write_text(json.dumps(content))


def small(suite: str = "autolora.T1", **options: Any) -> Plan:
    """Lay out a suite at the scale of that name."""
    return plan(read_suite(suite), "small", **options)


def own(folder: Path, grid: Mapping[str, Sequence[Any]], metrics: Sequence[str], **more: Any) -> Plan:
    """Lay out a suite of one's own, whose axes are options of a run.

    Args:
        folder: Where its file goes.
        grid: Its axes and their levels.
        metrics: Its columns.
        more: Other keys of the file; ``seeds`` and ``options`` go into its settings.
    """
    seeds, options = more.pop("seeds", [0]), more.pop("options", {})
    settings = {
        "about": "x",
        "seeds": seeds,
        "options": {"data": "photos", "method": "at", **options},
        "knobs": {axis: axis for axis in grid},
    }
    content = {"id": "own", "paper": "ours", "title": "x", "grid": dict(grid), "metrics": list(metrics)}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**content, "settings": {"small": settings}, **more}, sort_keys=False))
    return small(str(path))
