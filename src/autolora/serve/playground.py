"""Finished runs, their test images, and what an attack makes of one image with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from autolora.data import ImageSet
from autolora.errors import InputError
from autolora.experiments.assessment import evaluation_attack
from autolora.experiments.image_sides import shorter_side
from autolora.models import RobustModel, evaluating
from autolora.report.attacked import load_images, load_model
from autolora.report.collected import CollectedRun, collect
from autolora.serve.uploads import as_the_model_takes_it
from autolora.threat import ThreatModel

MOST_STEPS = 200  # of an attack: a slip of the finger shall not keep a machine busy for hours


@dataclass(frozen=True, eq=False)
class Player:
    """A run that can be tried.

    Args:
        run: What its folder tells.
        model: Its model, on the device where it is attacked.
        images: Its test images, at the size that the model takes; None if they are not there.
        shorter: To how many pixels the shorter side of an image is brought before the centre is cut out.
    """

    run: CollectedRun
    model: RobustModel
    images: ImageSet | None
    shorter: int

    @property
    def size(self) -> int:
        """Return the side of the images that the model takes, in pixels."""
        return self.model.architecture.input_size[-1]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One image with one model: natural, attacked, and what the model says of both.

    Args:
        run: Name of the run.
        classes: Names of the classes, in the order of the probabilities.
        target: The class that the attack led away from.
        x: Natural image, (3, S, S) in [0, 1].
        x_adv: Attacked image, of the same shape.
        natural: Probabilities, (K,); NaN where logits are not finite.
        adversarial: The same under attack.
    """

    run: str
    classes: tuple[str, ...]
    target: int
    x: Tensor
    x_adv: Tensor
    natural: Tensor
    adversarial: Tensor


class Playground:
    """Runs side by side, on test images or on images of the user's.

    Args:
        players: The runs, at least one.
        lacks: Why there are no test images to choose from; empty if there are.
    """

    def __init__(self, players: Sequence[Player], lacks: str = "") -> None:
        self.players = tuple(players)
        self.lacks = lacks
        self._busy = Lock()  # two requests at once would only slow each other down

    @property
    def images(self) -> ImageSet | None:
        """Return the test images to choose from: those of the first run."""
        return self.players[0].images

    def on_test_image(self, index: int, threat: ThreatModel, steps: int) -> list[Outcome]:
        """Attack a test image, away from its class.

        Raises:
            InputError: If there is no such image, or steps are too few or too many.
        """
        images = self.images
        if images is None or not 0 <= index < len(images):
            raise InputError(f"there is no test image {index}" + (f": {self.lacks}" if self.lacks else ""))
        label = int(images.labels[index])
        name = self.players[0].run.classes[label]
        return [
            self._attacked(player, _same_image(player, self.players[0], index), name, threat, steps)
            for player in self.players
        ]

    def on_upload(self, data: bytes, threat: ThreatModel, steps: int) -> list[Outcome]:
        """Attack an image of the user's, away from what each model takes it for.

        Raises:
            InputError: If it cannot be read, or steps are too few or too many.
        """
        return [
            self._attacked(player, as_the_model_takes_it(data, player.size, player.shorter), None, threat, steps)
            for player in self.players
        ]

    def _attacked(self, player: Player, x: Tensor, name: str | None, threat: ThreatModel, steps: int) -> Outcome:
        if not 1 <= steps <= MOST_STEPS:
            raise InputError(f"steps={steps}: take 1 to {MOST_STEPS}")
        x = x.to(next(player.model.parameters()).device)
        with self._busy, evaluating(player.model):
            natural = _probabilities(player.model, x)
            known = name in player.run.classes
            target = player.run.classes.index(name) if name is not None and known else int(natural.argmax())
            attack = evaluation_attack(threat, steps)
            x_adv = attack(player.model, x, torch.tensor([target], device=x.device))
            adversarial = _probabilities(player.model, x_adv)
        tensors = (each.cpu() for each in (x[0], x_adv[0], natural, adversarial))
        return Outcome(player.run.name, player.run.classes, target, *tensors)


def open_playground(
    folders: Sequence[str | Path], *, data: str | None, device: torch.device, progress: bool
) -> Playground:
    """Load runs and their test images.

    Args:
        folders: Run folders.
        data: Where the images are; None takes the place that each run's configuration names.
        device: Where to compute.
        progress: Show bars.

    Raises:
        InputError: If one is no finished run. Missing test images are no error: uploads remain.
    """
    players, lacks = [], ""
    for run in collect(folders):
        if not run.finished:
            raise InputError(f"{run.folder} is not finished, so it has no model to try; continue it with --resume")
        model = load_model(run).to(device)
        try:
            images: ImageSet | None = load_images(run, data, progress=progress)
        except InputError as error:
            images, lacks = None, lacks or str(error)
        shorter = shorter_side(run.folder / "model", model.architecture.input_size[-1])
        players.append(Player(run, model, images, shorter))
    return Playground(players, lacks)


def _same_image(player: Player, first: Player, index: int) -> Tensor:
    """Return a test image of the first run, (1, 3, S, S), as another run has it, or brought to the size it takes."""
    assert first.images is not None
    if player.images is not None and player.run.images_key == first.run.images_key:
        return player.images[index][0][None]
    x, size = first.images[index][0][None], player.size
    if x.shape[-1] == size:
        return x
    resized = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)


@torch.no_grad()
def _probabilities(model: RobustModel, x: Tensor) -> Tensor:
    logits = model(x)[0].float()
    return logits.softmax(dim=0) if bool(logits.isfinite().all()) else torch.full_like(logits, torch.nan)
