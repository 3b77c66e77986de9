"""The examination: every check that the doctor makes, on a model, its data and a radius that are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from tqdm import tqdm

from autolora.data import ImageSet, Splits
from autolora.data.duplicates import find_duplicates
from autolora.evaluation import Verdicts, verdicts
from autolora.evaluation.eps_view import view_eps
from autolora.evaluation.flags import preflight
from autolora.evaluation.input_scale import rescale
from autolora.evaluation.label_order import LabelOrder, label_order
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.diagnosis import Finding
from autolora.experiments.diagnosis.data import data_findings
from autolora.experiments.diagnosis.model import (
    accuracy_finding,
    classes_finding,
    flag_findings,
    order_finding,
    scale_finding,
)
from autolora.experiments.diagnosis.radius import eps_finding, radius_of, separation_finding
from autolora.experiments.evaluating import sample
from autolora.experiments.evaluation_config import Split
from autolora.models import RobustModel
from autolora.threat import Norm, Radius

PREFLIGHT_IMAGES = 32  # for defects that show on any image
SCALE_IMAGES = 256  # judged once for each scale; a gain of 5 points on them is far from chance
VIEW_IMAGES = 512
LIMIT = 1000


@dataclass(frozen=True)
class Circumstances:
    """How to look.

    Args:
        eps: Radius in pixel units, as it is to be used.
        norm: Of the threat model.
        split: Which images the model is judged on: ``test``, ``val`` or ``train``.
        limit: Largest number of them: a stratified sample.
        seed: Of the sample.
        device: Where to compute.
        progress: Show progress bars.
    """

    eps: Radius = "8/255"
    norm: Norm = "Linf"
    split: Split = "test"
    limit: int = LIMIT
    seed: int = 0
    device: str = "cpu"
    progress: bool = False


def examine(
    model: nn.Module,
    splits: Splits,
    circumstances: Circumstances,
    *,
    named: Sequence[str] = (),
) -> list[Finding]:
    """Examine a model, its data and a radius.

    Args:
        model: Images (N, 3, S, S) in [0, 1] to logits (N, K), in the mode in which it will be evaluated. It is moved to
            the device.
        splits: The data, at the size that the model takes.
        circumstances: How to look.
        named: What the model calls its outputs, if it does.

    Raises:
        InputError: If eps is no radius at all.
    """
    eps = radius_of(circumstances.eps, circumstances.norm)
    images: ImageSet = getattr(splits, circumstances.split).with_augmentation(False)
    images = images.subset(sample(images, circumstances.limit, circumstances.seed))
    model = model.to(circumstances.device)
    findings = [
        *_model_findings(model, images, splits.classes, named, circumstances),
        *_radius_findings(images, eps, circumstances.norm),
    ]
    found = find_duplicates(splits, device=torch.device(circumstances.device), progress=circumstances.progress)
    return findings + data_findings(splits, found)


def _model_findings(
    model: nn.Module, images: ImageSet, classes: Sequence[str], named: Sequence[str], circumstances: Circumstances
) -> Iterator[Finding]:
    """Stop where the rest would have no meaning: at a model that takes no such images, or has other classes."""
    x, y = (tensor.to(circumstances.device) for tensor in _first(images, PREFLIGHT_IMAGES))
    try:
        with torch.no_grad():
            outputs = model(x[:2]).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:
        yield _refused(x, error)
        return
    yield from flag_findings(preflight(model, x, y % outputs), len(x))
    classes_found = classes_finding(outputs, named, classes)
    yield classes_found
    if outputs != len(classes):
        return
    judged = _judge(model, images, circumstances)
    yield accuracy_finding(judged, len(classes))
    order = label_order(judged.label, judged.predicted, outputs)
    yield order_finding(order, classes)
    x, y = (tensor.to(circumstances.device) for tensor in _first(images, SCALE_IMAGES))
    normalize = model.normalize if isinstance(model, RobustModel) else None
    yield scale_finding(rescale(model, x, _answers(order, y), normalize))


def _refused(x: Tensor, error: Exception) -> Finding:
    size = "x".join(map(str, x.shape[-2:]))
    found = f"the model cannot take images of {size}: {' '.join(str(error).split())}"
    return Finding("forward", "problem", found, "give the size that it was made for, with --image-size")


def _judge(model: nn.Module, images: ImageSet, circumstances: Circumstances) -> Verdicts:
    size = evaluation_batch(images[0][0].shape[-1])
    starts = tqdm(range(0, len(images), size), "natural", disable=not circumstances.progress, leave=False)
    batches = (images.__getitems__(range(start, min(len(images), start + size))) for start in starts)
    return verdicts(model, ((x.to(circumstances.device), y.to(circumstances.device)) for x, y in batches))


def _answers(order: LabelOrder, y: Tensor) -> Tensor:
    """Classes by the outputs that answer for them, so that one defect does not hide another."""
    return torch.tensor(order.outputs, device=y.device)[y] if order.wrong else y


def _radius_findings(images: ImageSet, eps: Fraction | float, norm: Norm) -> Iterator[Finding]:
    x, y = _first(images, VIEW_IMAGES)
    view = view_eps(x, y, float(eps), norm)
    finding = eps_finding(eps, norm, x[0].numel(), view)
    yield finding
    if finding.status != "problem":
        yield separation_finding(view, eps)


def _first(images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    return images.__getitems__(range(min(count, len(images))))
