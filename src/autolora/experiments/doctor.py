"""From the options of ``autolora doctor`` to a diagnosis: look before hours are spent."""

from __future__ import annotations

import logging
from typing import get_args

from autolora.data.splits import SMALLEST_IMAGE
from autolora.errors import InputError
from autolora.experiments.diagnosis import Diagnosis, Finding, first
from autolora.experiments.diagnosis.examination import LIMIT, Circumstances, examine
from autolora.experiments.diagnosis.radius import radius_of
from autolora.experiments.evaluation_config import Split
from autolora.experiments.patient import Patient, find_patient
from autolora.experiments.proportion import shown
from autolora.threat import Norm, Radius
from autolora.training.precision import resolve_device

logger = logging.getLogger(__name__)


def run_doctor(
    name: str,
    *,
    data: str | None = None,
    data_root: str | None = None,
    eps: Radius | None = None,
    norm: Norm | None = None,
    split: Split = "test",
    weights: str = "auto",
    weights_format: str = "auto",
    image_size: int | None = None,
    limit: int = LIMIT,
    seed: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Diagnosis:
    """Load a model and its data, and examine them.

    Args:
        name: The model, see :func:`find_patient`, which has most of the other arguments too.
        data: Where the images are; None takes those of the run.
        data_root: Where named sets lie; None takes the run's place, or the usual one.
        eps: Radius in pixel units; None takes the run's, or 8/255.
        norm: Of the threat model; None takes the run's, or Linf.
        split: Which images the model is judged on.
        weights: For a timm name.
        weights_format: Of a checkpoint file.
        image_size: Side in pixels.
        limit: Largest number of images that are judged.
        seed: Of the sample, and of the division where the model is no run; None takes the run's, or 0.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: Show progress bars.

    Raises:
        InputError: If there is no such model or no data, or an option is none.
    """
    for option, value, low in (("limit", limit, 2), ("seed", seed, 0), ("image-size", image_size, SMALLEST_IMAGE)):
        if value is not None and value < low:
            raise InputError(f"{option}={value} is too small; use {low} or more")
    if split not in get_args(Split):
        raise InputError(f"split={split!r} is none; use one of {', '.join(get_args(Split))}")
    if eps is not None:
        radius_of(eps, norm or "Linf")  # before anything is read
    where = resolve_device(device)
    patient = find_patient(
        name,
        data=data,
        data_root=data_root,
        weights=weights,
        weights_format=weights_format,
        image_size=image_size,
        seed=seed or 0,
        progress=progress,
    )
    for note in patient.splits.notes:
        logger.info(note)
    run = patient.config
    circumstances = Circumstances(
        eps=eps if eps is not None else run.eps if run is not None else "8/255",
        norm=norm or (run.norm if run is not None else "Linf"),
        split=split,
        limit=limit,
        seed=seed if seed is not None else run.seed if run is not None else 0,
        device=str(where),
        progress=progress,
    )
    findings = examine(patient.model, patient.splits, circumstances, named=patient.named)
    count = min(limit, len(getattr(patient.splits, split)))
    return Diagnosis(
        name,
        data or (run.data if run is not None else ""),
        f"{circumstances.norm} {shown(circumstances.eps)}",
        f"{count} {split} images",
        [*_changed(patient), *_left_out(patient), *findings],
    )


def _changed(patient: Patient) -> list[Finding]:
    if patient.changed is None:
        return []
    advice = "put them back as they were, or fine-tune again"
    return [Finding("changed-images", "problem", patient.changed, advice)]


def _left_out(patient: Patient) -> list[Finding]:
    if not patient.left_out:
        return []
    found = (
        f"{len(patient.left_out)} classes of the data are unknown to the model, and left out: {first(patient.left_out)}"
    )
    return [Finding("left-out-classes", "note", found, details={"left_out": list(patient.left_out)})]
