"""The two functions of the Python interface that stand for commands."""

from __future__ import annotations

import os
from typing import Any

from autolora.experiments.config import config_from
from autolora.experiments.presets import with_preset
from autolora.experiments.result import RunResult
from autolora.experiments.run import run
from autolora.models import RobustModel
from autolora.models.bundle import load_bundle


def finetune(
    data: str | os.PathLike[str],
    *,
    preset: str | None = None,
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> RunResult:
    """Fine-tune a pre-trained backbone into a robust classifier, and evaluate it on held-out images.

    Args:
        data: A folder of class folders (or ``train/ [val/] test/`` of them), an archive of one, or a named set.
        preset: Options of a published protocol to start from, such as ``"aff-trades"``; ``options`` win. ``autolora
            presets`` lists them.
        resume: Continue a run that stopped, after its last finished epoch.
        progress: Show progress bars.
        options: The options of ``autolora fit``, such as ``model``, ``method``, ``eps`` (pixel units, ``"8/255"``),
            ``epochs``, ``out``; the fields of :class:`autolora.experiments.config.RunConfig`.

    Returns:
        The scores and the run folder.

    Raises:
        InputError: If the preset, an option, the data or the folder cannot work; nothing is written then.
        TrainingError: If a loss is not finite.
    """
    options = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}
    if preset is not None:
        options = with_preset(preset, options)
    return run(config_from({**options, "data": data}), resume=resume, progress=progress)


def load(run_folder: str | os.PathLike[str]) -> RobustModel:
    """Load the model of a finished run: images (N, 3, H, W) in [0, 1] to logits (N, K), in evaluation mode.

    Raises:
        InputError: If the folder holds no model.
    """
    return load_bundle(os.fspath(run_folder))
