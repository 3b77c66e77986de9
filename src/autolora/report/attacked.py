"""Test images under attack, done again on a few of them: what the file of verdicts does not keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from autolora.attacks.autoattack.ensemble import NATURAL
from autolora.data import ImageSet
from autolora.errors import InputError
from autolora.evaluation.judging import standing
from autolora.evaluation.shards import MANIFEST, Shard, Shards
from autolora.experiments.assessment import evaluation_attack, evaluation_batch
from autolora.experiments.evaluation import shard_folder
from autolora.experiments.judged_files import read_json, require
from autolora.experiments.subject import find_subject, model_fingerprint
from autolora.models import RobustModel, evaluating
from autolora.models.bundle import load_bundle
from autolora.report.collected import CollectedRun
from autolora.report.evaluations import SHARDS, Evaluation
from autolora.threat import ThreatModel

ATTACK = "pgd-10"  # the run's own, from the natural image: done again it finds the same
SAVED_BATCH = 64


@dataclass(frozen=True, eq=False)
class Attacked:
    """Test images, natural and attacked, with what a model says of both.

    Args:
        index: Their places in the test split, ascending.
        label: Their classes, (N,).
        x: Natural images, (N, C, H, W) in [0, 1].
        x_adv: Adversarial images, of the same shape.
        natural: Probabilities on the natural images, (N, K); NaN where logits are not finite.
        adversarial: The same on the adversarial images.
    """

    index: tuple[int, ...]
    label: Tensor
    x: Tensor
    x_adv: Tensor
    natural: Tensor
    adversarial: Tensor

    def place(self, index: int) -> int:
        """Return where in the tensors an image stands."""
        return self.index.index(index)

    @property
    def answers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what the images are taken for, natural and under attack, (N,); -1 is no finite answer.

        Who is wrong without an attack stays as wrong: the natural image is one that the adversary may show.
        """
        natural, adversarial = _answers(self.natural), _answers(self.adversarial)
        return natural, np.where(natural == self.label.numpy(), adversarial, natural)


def load_model(run: CollectedRun) -> RobustModel:
    """Load the model that a run shipped.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    try:
        return load_bundle(run.folder)
    except InputError:
        raise
    except Exception as error:  # timm's, safetensors' and torch's own: a report goes on without
        raise InputError(f"{run.folder / 'model'} cannot be loaded ({type(error).__name__}: {error})") from error


def load_images(run: CollectedRun, data: str | None, *, progress: bool) -> ImageSet:
    """Load a run's test images.

    Args:
        run: The run.
        data: Where its images are now; None takes the place that its configuration names.
        progress: Show a bar.

    Raises:
        InputError: If they are not there, or others than the run was tested on.
    """
    subject = find_subject(str(run.folder), data=data, progress=progress)
    if subject.fingerprint != run.data.get("fingerprint"):
        raise InputError(
            f"{data or run.config.get('data')} does not hold the images that {run.folder} was tested on (fingerprints "
            f"{subject.fingerprint[:12]} and {str(run.data.get('fingerprint'))[:12]}); name them with --data"
        )
    return subject.images


def check_order(run: CollectedRun, images: ImageSet) -> None:
    """Refuse verdicts that are not of these images, one after the other.

    Raises:
        InputError: If they are not.
    """
    verdicts = run.verdicts
    if verdicts is not None and (
        not np.array_equal(verdicts.index, np.arange(len(images)))
        or not np.array_equal(verdicts.label, images.labels.numpy())
    ):
        raise InputError(f"the verdicts of {run.folder} are not of its {len(images)} test images; evaluate it again")


def attack_images(
    model: RobustModel,
    images: ImageSet,
    index: Sequence[int],
    threat: ThreatModel,
    device: torch.device,
    *,
    progress: bool,
) -> Attacked:
    """Attack some test images by PGD-10, as the run's own evaluation does."""
    model, places = model.to(device), tuple(sorted(set(index)))
    size = evaluation_batch(model.architecture.network_size[-1])
    attack, parts = evaluation_attack(threat), []
    bar = tqdm(
        total=len(places), desc="attacking images for the report", unit="image", disable=not progress, leave=False
    )
    with bar, evaluating(model):
        for first in range(0, len(places), size):
            x, y = images.__getitems__(places[first : first + size])
            x, y = x.to(device), y.to(device)
            x_adv = attack(model, x, y)
            with torch.no_grad():
                parts.append(
                    [part.cpu() for part in (y, x, x_adv, _probabilities(model(x)), _probabilities(model(x_adv)))]
                )
            bar.update(len(y))
    return Attacked(places, *(torch.cat(column) for column in zip(*parts, strict=True)))


def saved_answers(
    model: RobustModel, evaluation: Evaluation, attack: str, device: torch.device
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Ask a model about the adversarial images that an evaluation kept.

    Returns:
        Labels and answers under attack, (N,), of all images of the evaluation; None if it kept none of this model.

    Raises:
        InputError: If what it kept is damaged.
    """
    eps = evaluation.threat.partition(" ")[2]
    folder = evaluation.folder / SHARDS / shard_folder(eps, attack)
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_json(folder / MANIFEST)
    for name, kind in (("model", str), ("total", int), ("shard", int)):
        require(manifest, folder / MANIFEST, (name,), kind)
    if manifest["model"] != model_fingerprint(model) or manifest["total"] < 1 or manifest["shard"] < 1:
        return None
    shards = Shards(folder, manifest["total"], manifest["shard"])
    found = [shards.read(number) for number in range(len(shards))]
    if any(shard is None for shard in found):
        return None
    whole = [shard for shard in found if shard is not None]
    answers = [_shard_answers(model, shard, device, folder) for shard in whole]
    return np.concatenate([shard.label.numpy() for shard in whole]), np.concatenate(answers)


@torch.no_grad()
def _shard_answers(model: RobustModel, shard: Shard, device: torch.device, folder: Path) -> NDArray[np.int64]:
    fell = (shard.by > NATURAL).numpy()
    known = shard.label.lt(model.head.out_features) & shard.predicted.lt(model.head.out_features)
    if len(shard.fallen) != fell.sum() or not bool((known & (shard.label >= 0) & (shard.predicted >= 0)).all()):
        raise InputError(f"{folder} does not keep an adversarial image for every fall; evaluate again")
    # the label as answer, and yet wrong: the logits were not finite, and argmax of NaN is a class all the same
    natural = torch.where(shard.predicted == shard.label, -1, shard.predicted)
    answers = torch.where(standing(shard), shard.label, natural).numpy()
    model = model.to(device)
    with evaluating(model):
        parts = [_probabilities(model(x.to(device))).cpu() for x in torch.split(shard.fallen, SAVED_BATCH) if len(x)]
    if parts:
        answers[fell] = _answers(torch.cat(parts))
    return answers


def _probabilities(logits: Tensor) -> Tensor:
    """Softmax in float32; NaN for all classes where a logit is not finite."""
    finite = logits.isfinite().all(dim=1, keepdim=True)
    return torch.where(finite, logits.float().softmax(dim=1), torch.nan)


def _answers(probabilities: Tensor) -> NDArray[np.int64]:
    answers = torch.where(probabilities.isfinite().all(dim=1), probabilities.nan_to_num().argmax(dim=1), -1)
    return answers.numpy().astype(np.int64)
