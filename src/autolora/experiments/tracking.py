"""A row per epoch: to the terminal, to ``metrics.jsonl``, and to TensorBoard, Weights & Biases, MLflow or Trackio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator

from autolora.errors import InputError, RunError
from autolora.experiments.config import RunConfig
from autolora.experiments.result import METRICS, write_metrics
from autolora.models.checkpoints.names import shown
from autolora.training import TrainingState

logger = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
PROJECT = "autolora"
FOLDER = "tensorboard"  # in the run folder: tensorboard --logdir RUN

Track = Callable[[Mapping[str, float]], None]


def tracker(config: RunConfig) -> str | None:
    """Return the tracker that a configuration asks for; ``auto`` is TensorBoard where it is installed, else none.

    Raises:
        InputError: If one is asked for whose package is not there.
    """
    if config.track == "none":
        return None
    name = "tensorboard" if config.track == "auto" else config.track
    if find_spec(PACKAGES[name]) is not None:
        return name
    if config.track == "auto":
        return None
    raise InputError(f"--track {name}: the package {PACKAGES[name]} is not there; pip install {PACKAGES[name]}")


@contextmanager
def tracked(accelerator: Accelerator, config: RunConfig) -> Iterator[Track]:
    """Track a run for as long as it trains, through accelerate's trackers.

    Args:
        accelerator: Of the run; its main process writes.
        config: Of the run. It is kept with the rows.

    Yields:
        What takes a row of the history, whose ``epoch`` is the step.

    Raises:
        InputError: If a tracker is asked for whose package is not there.
        RunError: After the first epoch, which is kept, if one that is asked for cannot start.
    """
    name = tracker(config)
    if name is None:
        yield lambda row: None
        return
    accelerator.log_with = [name]
    accelerator.project_configuration.logging_dir = str(config.folder / FOLDER)
    begun = False

    def track(row: Mapping[str, float]) -> None:
        nonlocal begun
        if not begun:  # only now: a run that is refused leaves nothing behind
            begun = True
            _start(accelerator, config, name)
        accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=int(row["epoch"]))

    try:
        yield track
    finally:
        for opened in accelerator.trackers:  # Accelerator.end_training would take the process group down as well
            opened.finish()


def _start(accelerator: Accelerator, config: RunConfig, name: str) -> None:
    """Open a tracker; one that nobody has asked for may fail.

    Raises:
        RunError: If one that is asked for cannot start.
    """
    try:
        accelerator.init_trackers(PROJECT, config=_plain(config))
    except Exception as error:  # trackers raise whatever their packages do
        accelerator.trackers = []  # what has not started cannot be finished either
        reason = f"{type(error).__name__}: {shown(' '.join(str(error).split()))}"
        if config.track == "auto":
            logger.warning(f"{name} cannot start ({reason}): the run goes on without it; --track none leaves it out")
            return
        raise RunError(
            f"--track {name}: {name} cannot start ({reason}); mend that, or leave it out with --track none"
        ) from error


def epoch_log(folder: Path, epochs: int, track: Track) -> Callable[[TrainingState], None]:
    """Return what is called after every epoch."""

    def log(state: TrainingState) -> None:
        write_metrics(folder / METRICS, state.history)
        row = state.history[-1]
        track(row)
        logger.info(
            f"epoch {state.epoch:>3}/{epochs}  lr {row['lr']:<8.3g} "
            f"validation: natural {row['val_natural']:6.1%}  robust {row['val_robust']:6.1%}  "
            f"({row['seconds']:.1f} s, {row['waiting']:.0%} waiting for images)"
        )

    return log


def _plain(config: RunConfig) -> dict[str, str | int | float | bool]:
    """Return every option as a value that all trackers take."""
    return {
        name: value if isinstance(value, str | int | float | bool) else str(value)
        for name, value in asdict(config).items()
    }
