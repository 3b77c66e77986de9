"""The main job on what the package holds: digits, the packaged backbone, AutoLoRa, and a natural control beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from autolora.experiments.config import RunConfig
from autolora.experiments.evaluating import run_evaluation
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.result import RESULT, RunResult, write_json
from autolora.experiments.run import run

EPOCHS = 4  # what fits in the time of a first look on two cores
# at 8/255 the control, which starts from a robust backbone too, still holds on digits of so much contrast
EPS = "16/255"
IMAGE_SIZE = 20  # more than the digits' own 8 pixels; at the backbone's 32, the same would take twice the time
CONTROL = "control"
AUTOATTACK = "autoattack-fast"
AUTOATTACK_IMAGES = 40  # on all test images these attacks would take longer than all the rest


def quickstart(out: str | None = None, *, seed: int = 0, progress: bool = True) -> tuple[RunResult, RunResult]:
    """Fine-tune the packaged backbone on handwritten digits, with AutoLoRa and naturally, and attack both alike.

    All test images are attacked by PGD-10, and a sample of them by the first two attacks of AutoAttack.

    Args:
        out: Run folder of the robust model; the control's lies in it as ``control/``. By default a new folder
            ``runs/quickstart``.
        seed: Seed of split, initialisation, order and attacks.
        progress: Show progress bars.

    Returns:
        The robust run and the naturally fine-tuned control.

    Raises:
        InputError: If the folder holds something else.
    """
    folder = Path(out) if out else _new_folder()
    config = RunConfig(
        data="digits", method="autolora", eps=EPS, epochs=EPOCHS, image_size=IMAGE_SIZE, seed=seed, out=str(folder)
    )
    robust = run(config, progress=progress)
    control = run(replace(config, method="ft", out=str(folder / CONTROL)), progress=progress)
    return _attacked(robust, seed=seed, progress=progress), _attacked(control, seed=seed, progress=progress)


def _attacked(result: RunResult, *, seed: int, progress: bool) -> RunResult:
    """Put what the first attacks of AutoAttack leave of a sample beside the run's scores, in ``result.json`` too."""
    started = time.perf_counter()
    asked = EvaluationConfig(str(result.folder), fast=True, limit=AUTOATTACK_IMAGES, seed=seed)
    found = run_evaluation(asked, progress=progress)["scores"][AUTOATTACK]
    content = {**result.content, "scores": {**result.scores, AUTOATTACK: found}}
    content["seconds"] = round(content["seconds"] + time.perf_counter() - started, 3)
    write_json(result.folder / RESULT, content)
    return RunResult(result.folder, content)


def _new_folder() -> Path:
    folder, number = Path("runs/quickstart"), 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"quickstart-{number}")
    return folder
