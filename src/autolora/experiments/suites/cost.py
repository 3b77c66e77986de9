"""What a run costs, counted before it is done: passes of one image through the network, forwards or backwards.

The counts are those of the papers' algorithms and of this package's attacks. How long a pass takes depends on network
and machine and is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autolora.data import NAMED_SETS
from autolora.errors import InputError
from autolora.experiments.ingredients import default_epochs
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.metrics import STEPS
from autolora.experiments.suites.settings import Place, Settings

PASSES_OF_LOSS: dict[str, int] = {  # per training image and step, forwards and backwards, without the attack
    "ft": 2,
    "at": 2,
    "vanilla-rft": 4,
    "twins-at": 2,  # each image goes through one of the two nets
    "twins-trades": 4,
    "autolora": 4,
    "loft": 4,
    "slf": 1,  # nothing of the backbone needs a gradient
    "alf": 1,
}
UNATTACKED = ("ft", "slf")
MEASURING = {"autolora": 1}  # forwards per training image and epoch, before it begins
NATURAL, PGD10 = 1, 21  # of a verdict: a forward, and ten steps and a forward
SIMILARITY_IMAGES, SIMILARITY = 256, 32  # images that are measured; passes each, at most: attack, two pairs of losses
APGD_STEPS = FAB_STEPS = 100
TARGETS, QUERIES = 9, 5000
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
        The cost; None if the settings do not say how many images there are, and the data are no named set.

    Raises:
        InputError: If a method's passes are not known.
    """
    asked = tuple(attacks)
    total = Cost()
    for job in jobs:
        data = str(job.options.get("data"))
        place = settings.places.get(data, Place("data", default=data))
        if not _counted(place).train:
            return None
        total += _cost(job, place, asked, settings.evaluation.get("limit"))
    return total


def _cost(job: Job, place: Place, attacks: tuple[str, ...], limit: int | None) -> Cost:
    train, val, test, classes = images(job, place)
    options, method = job.options, str(job.options.get("method", "autolora"))
    if method not in PASSES_OF_LOSS:
        raise InputError(f"the cost of method {method!r} is not known; there are {', '.join(PASSES_OF_LOSS)}")
    step = PASSES_OF_LOSS[method] + (0 if method in UNATTACKED else 2 * attack_steps(str(options.get("attack", ""))))
    epochs, every = int(options.get("epochs") or default_epochs(train)), int(options.get("gradient_similarity", 0))
    training = epochs * (train * (step + MEASURING.get(method, 0)) + val * (NATURAL + PGD10))
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
    targets = min(TARGETS, max(classes - 1, 1))
    fast = NATURAL + 2 * APGD_STEPS * (1 + targets)
    return fast if attack == "autoattack-fast" else fast + 3 * FAB_STEPS * targets + QUERIES
