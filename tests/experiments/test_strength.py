"""Which of a run's attacks the verdict is about."""

from __future__ import annotations

from random import Random

from autolora.experiments.strength import strength

WEAKEST_FIRST = ["natural", "pgd-0", "pgd-7", "pgd-10", "pgd-20", "pgd-20x2", "pgd-20x5", "pgd-50", "autoattack-fast"]


def test_attacks_in_the_order_of_what_they_ask_of_a_model() -> None:
    for seed in range(5):
        mixed = [*WEAKEST_FIRST, "autoattack"]
        Random(seed).shuffle(mixed)
        assert sorted(mixed, key=strength) == [*WEAKEST_FIRST, "autoattack"]
