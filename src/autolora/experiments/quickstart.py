"""The main job on what the package holds: digits, the packaged backbone, AutoLoRa, and a natural control beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autolora.experiments.config import RunConfig
from autolora.experiments.result import RunResult
from autolora.experiments.run import run

EPOCHS = 4  # what fits in the time of a first look on two cores
# at 8/255 the control, which starts from a robust backbone too, still holds on digits of so much contrast
EPS = "12/255"
CONTROL = "control"


def quickstart(out: str | None = None, *, seed: int = 0, progress: bool = True) -> tuple[RunResult, RunResult]:
    """Fine-tune the packaged backbone on handwritten digits, with AutoLoRa and naturally, and attack both alike.

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
    config = RunConfig(data="digits", method="autolora", eps=EPS, epochs=EPOCHS, seed=seed, out=str(folder))
    robust = run(config, progress=progress)
    control = run(replace(config, method="ft", out=str(folder / CONTROL)), progress=progress)
    return robust, control


def _new_folder() -> Path:
    folder, number = Path("runs/quickstart"), 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"quickstart-{number}")
    return folder
