"""What dominates a run, and what would make it cheaper: options, with what they would leave of the forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from autolora.experiments.planning.forecast import MEASURING, TRAINING, VALIDATION, Forecast
from autolora.experiments.planning.words import duration

MUCH = 0.15  # share of a run above which an option that saves it is named
SHARE = 0.25  # of the training images, as an example
FULL = 0.5  # share of the machine's memory above which less is advised
FEW = 500  # images of a first look with AutoAttack, as `evaluate --fast` takes


@dataclass(frozen=True)
class Advice:
    """Something that makes it cheaper.

    Args:
        option: What to add to the command.
        effect: What it would do, in words.
    """

    option: str
    effect: str


def dominant(forecast: Forecast) -> str:
    """Return the name of the part of the run that takes longest."""
    return max(forecast.items(), key=lambda item: item.seconds).name


def advice(forecast: Forecast) -> list[Advice]:
    """Return what makes the run or its evaluation cheaper, largest saving first."""
    return [*_of_time(forecast), *_of_memory(forecast), *_of_evaluation(forecast)]


def _of_time(forecast: Forecast) -> Iterator[Advice]:
    whole, items = forecast.seconds(), {item.name: item.seconds for item in forecast.items()}
    steps = forecast.sizes.attack_steps
    saved = items[TRAINING] * forecast.attack_share * (1 - 1 / steps)
    if steps > 1 and saved > MUCH * whole:
        effect = f"one attack step in place of {steps}: about {duration(whole - saved)}; as a rule less robust"
        yield Advice("--attack one-step", effect)
    if forecast.config.label_fraction == 1 and items[TRAINING] > MUCH * whole:
        left = whole - (1 - SHARE) * (items[TRAINING] + items[MEASURING])
        yield Advice(f"--label-fraction {SHARE}", f"a quarter of the training images: about {duration(left)}")
    if items[VALIDATION] > MUCH * whole:
        effect = (
            f"smaller: the {forecast.sizes.val} validation images take {items[VALIDATION] / whole:.0%}; fewer select "
            "the epoch less surely"
        )
        yield Advice("--val-fraction", effect)


def _of_memory(forecast: Forecast) -> Iterator[Advice]:
    sizes = forecast.sizes
    total = psutil.virtual_memory().total / 2**20
    on_cpu = str(forecast.environment["device"]).startswith("cpu")
    if sizes.batch > forecast.largest_batch or (on_cpu and forecast.mib > FULL * total):
        effect = "a batch in parts, whose gradients add up to the batch's: less memory, hardly more time"
        yield Advice(f"--accumulate {2 * forecast.config.accumulate}", effect)


def _of_evaluation(forecast: Forecast) -> Iterator[Advice]:
    subset = forecast.subset("standard")
    if 0 < subset.images < subset.total and subset.uncertainty is not None:
        yield Advice(
            f"--limit {subset.images}",
            f"of `evaluate`: AutoAttack on as many test images as {duration(forecast.budget)} allows, "
            f"± {100 * subset.uncertainty:.1f} points",
        )
    few = min(FEW, forecast.sizes.test)
    taken = duration(few * forecast.version("fast").each)
    yield Advice("--fast", f"of `evaluate`: the first two attacks on {few} images, an upper bound: at most {taken}")
