"""What a run costs, counted before it is done: passes of one image through the network, forwards or backwards.

The counts are those of the papers' algorithms and of this package's attacks. How long a pass takes depends on network
and machine and is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autolora.attacks.autoattack.ensemble import AutoAttack
from autolora.data import NAMED_SETS
from autolora.experiments.ingredients import default_epochs
from autolora.experiments.planning.attack_passes import passes
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.metrics import STEPS
from autolora.experiments.suites.settings import Options, Place, Settings
from autolora.methods import METHODS
from autolora.threat import ThreatModel

NATURAL, PGD10 = 1, 21  # of a verdict: a forward, and ten steps and a forward
SIMILARITY_IMAGES, SIMILARITY = 256, 32  # images that are measured; passes each, at most: attack, two pairs of losses
HELD_OUT = 0.2  # of images that come without a test split


@dataclass(frozen=True)
class Cost:
    """Passes of single images through the network.

    Args:
        training: Attack, losses and what is measured while training, validation among it.
        testing: Natural and PGD-10 verdicts on the test images.
        autoattack: At most, if no image falls: it is asked for the images that PGD-like attacks leave standing.
    """

    training: int = 0
    testing: int = 0
    autoattack: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.training + other.training, self.testing + other.testing, self.autoattack + other.autoattack)


def cost_of(jobs: Iterable[Job], settings: Settings, attacks: Iterable[str] = ()) -> Cost | None:
    """Estimate what runs cost that have still to be done.

    Args:
        jobs: The runs.
        settings: Of their scale, which know how many images there are.
        attacks: What they are evaluated with beyond PGD-10.

    Returns:
        The cost; None if the settings do not say how many images there are and the data are no named set, or a method
        does not say how many passes it takes.
    """
    asked = tuple(attacks)
    total = Cost()
    for job in jobs:
        data = str(job.options.get("data"))
        place = settings.places.get(data, Place("data", default=data))
        step = passes_of_step(job.options)
        if not _counted(place).train or step is None:
            return None
        total += _cost(job, place, step, asked, settings.evaluation.get("limit"))
    return total


def passes_of_step(options: Options) -> int | None:
    """Return the passes of a training image in one epoch, its attack included; None if the method does not say."""
    method = METHODS[str(options.get("method", "autolora"))]
    if method.passes_of_loss is None:
        return None
    attack = 0 if method.natural_only else 2 * attack_steps(str(options.get("attack", "")))
    return method.passes_of_loss + method.passes_before_epoch + attack


def _cost(job: Job, place: Place, step: int, attacks: tuple[str, ...], limit: int | None) -> Cost:
    train, val, test, classes = images(job, place)
    options = job.options
    epochs, every = int(options.get("epochs") or default_epochs(train)), int(options.get("gradient_similarity", 0))
    training = epochs * (train * step + val * (NATURAL + PGD10))
    if every:
        training += epochs // every * min(train, SIMILARITY_IMAGES) * SIMILARITY
    attacked = test if limit is None else min(limit, test)
    return Cost(training, test * (NATURAL + PGD10), attacked * sum(passes_of(attack, classes) for attack in attacks))


def images(job: Job, place: Place) -> tuple[int, int, int, int]:
    """Return how many training, validation and test images a run has, and how many classes."""
    options, place = job.options, _counted(place)
    classes = len(str(options["classes"]).split(",")) if options.get("classes") else place.classes
    share = classes / place.classes if place.classes else 1.0
    train, test = round(place.train * share), round(place.test * share)
    val = test if job.selects_on_test else round(train * options.get("val_fraction", 0.05))
    left = train if job.selects_on_test else train - val
    return round(left * options.get("label_fraction", 1.0)), val, test, classes


def _counted(place: Place) -> Place:
    """Return a place with the numbers of images of the named set that it is by default, where it has none itself.

    Of a set without test images, a part is held out.
    """
    known = NAMED_SETS.get(place.default or "")
    if known is None or place.train:
        return place
    test = known.test or round(known.train * HELD_OUT)
    return replace(place, train=known.train + known.test - test, test=test, classes=known.classes)


def attack_steps(name: str) -> int:
    """Return the steps of a training attack by its name; the default is PGD-10."""
    found = STEPS.fullmatch(name)
    return int(found[1]) if found else 1 if name == "one-step" else 10


def passes_of(attack: str, classes: int) -> int:
    """Return the most passes that an attack takes for one image."""
    if found := STEPS.fullmatch(attack):
        return NATURAL + 2 * int(found[1]) + 1
    ensemble = AutoAttack(ThreatModel(0), "fast" if attack == "autoattack-fast" else "standard")
    return NATURAL + sum(passes(part, max(classes, 2)).total for part in ensemble.parts().values())
