"""Protocols: the sound one, and the habits of released code, each of which can be switched on by itself.

``fit`` has no test split in its arguments, so that nothing in training can see a test image. Where a released protocol
selects on test images, they are therefore given to it as validation images, by data that are laid out so
(:mod:`autolora.experiments.suites.layout`): whoever reads the result finds it written there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autolora.errors import InputError
from autolora.experiments.config import suggestion
from autolora.experiments.suites.settings import Options, merged

SELECT_ON_TEST, ON_ALL, IDLE, ROUNDED, SPLIT = (
    *("select-on-test", "baselines-on-all", "idle-branch", "rounded-eps", "caltech-split"),
)
HABITS: dict[str, str] = {
    SELECT_ON_TEST: "the validation images are the test images: the epoch that is best on them is reported, and the "
    "automatic rate follows them (in the release it does so on DTD and Caltech-256 only)",
    ON_ALL: "methods other than AutoLoRa train on all training images, AutoLoRa on those that validation leaves; comes "
    "with select-on-test, which leaves the baselines no validation images of their own",
    IDLE: "AutoLoRa's branch acts in the last block of each stage only",
    ROUNDED: "radius 0.0314 instead of 8/255 in training and evaluation, and a training step of 0.00784 instead of "
    "2/255 (those of evaluation are eps / 4 as ever, which is 0.00785)",
    SPLIT: "Caltech-256 as it is split in the release: training images with duplicates, test images of 24 classes",
}
CALTECH, CALTECH_RELEASED = "caltech256", "caltech256-released"
SOUND, RELEASED = "sound", "released"
RELEASES = "autolora"  # the method of the release: it has the branch, and validation images of its own


@dataclass(frozen=True)
class Protocol:
    """How runs are selected and what else of a release they follow.

    Args:
        habits: Names of ``HABITS``, in their order; none is the sound protocol.
    """

    habits: tuple[str, ...] = ()

    @property
    def selects_on_test(self) -> bool:
        """Whether validation images are the test images."""
        return SELECT_ON_TEST in self.habits

    def __str__(self) -> str:
        return "+".join(self.habits) or SOUND

    def apply(self, options: Options) -> dict[str, Any]:
        """Return the options of a run under this protocol.

        Raises:
            InputError: If they leave open how many images the sound protocol trains on, and this trains on as many.
        """
        changed = dict(options)
        if self.selects_on_test:
            changed = _select_on_test(changed, on_all=ON_ALL in self.habits)
        if IDLE in self.habits and changed.get("method") == RELEASES:
            changed = merged(changed, {"method_options": {"targets": "last-block"}})
        if ROUNDED in self.habits:
            changed |= {"eps": 0.0314, "step_size": 0.00784}
        if SPLIT in self.habits and changed.get("data") == CALTECH:
            changed["data"] = CALTECH_RELEASED
        return changed


def protocol(name: str = SOUND, habits: Iterable[str] = (), released: Sequence[str] = ()) -> Protocol:
    """Return a protocol.

    Args:
        name: ``"sound"``, or ``"released"`` for all habits of a paper's released code.
        habits: Single ones, on top of the sound protocol.
        released: The habits of the paper that it is about.

    Raises:
        InputError: If the name or a habit is unknown, the released code does not have it, both are given, or there is
            no released code.
    """
    asked = list(dict.fromkeys(habits))
    for habit in asked:
        if habit not in HABITS:
            raise InputError(f"habit {habit!r} is unknown{suggestion(habit, HABITS)}")
        if released and habit not in released:
            raise InputError(f"habit {habit} is none of the code behind this suite; there are {', '.join(released)}")
    if name not in (SOUND, RELEASED):
        raise InputError(f"protocol {name!r} is unknown; use {SOUND} or {RELEASED}, or single habits")
    if name == RELEASED and asked:
        raise InputError(f"protocol {RELEASED} has all habits; give either it or --habit {asked[0]}")
    if name == RELEASED and not released:
        raise InputError("the paper has no released code to follow; single habits can be had with --habit")
    chosen = set(released if name == RELEASED else asked)
    if ON_ALL in chosen:
        chosen.add(SELECT_ON_TEST)
    return Protocol(tuple(habit for habit in HABITS if habit in chosen))


def _select_on_test(options: dict[str, Any], *, on_all: bool) -> dict[str, Any]:
    """Validate on test images; as many images are trained on as before, or all of them."""
    held_out = options.pop("val_fraction", None)
    if held_out is None:  # `fit` then holds out 5 to 20 %, by how many images there are
        raise InputError(
            f"habit {SELECT_ON_TEST} trains on as many images as the sound protocol, which cannot be told where "
            "val_fraction is left open; set it in the options of the suite's settings, such as val_fraction: 0.05"
        )
    keeps_all = on_all and options.get("method") != RELEASES
    share = options.get("label_fraction", 1.0) * (1.0 if keeps_all else 1 - held_out)
    return {**options, "label_fraction": round(share, 9)}
