"""A permuted head is found, with its permutation; a model that is merely weak is not accused."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from autolora.evaluation.label_order import label_order


def answers(label: Tensor, classes: int, accuracy: float, seed: int = 0) -> Tensor:
    """Predictions that are right on a share of the images, and anything on the others."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(len(label), generator=generator) < accuracy
    return torch.where(right, label, torch.randint(classes, (len(label),), generator=generator))


def test_a_permuted_head_is_found_and_inverted() -> None:
    label = torch.arange(200) % 5
    permutation = torch.tensor([2, 0, 1, 4, 3])
    order = label_order(label, permutation[answers(label, 5, 0.8)], 5)
    assert order.wrong and order.outputs == tuple(permutation.tolist())
    assert order.moved == {0: 2, 1: 0, 2: 1, 3: 4, 4: 3}
    assert order.best.accuracy > 0.75 > 0.2 > order.given.accuracy
    assert order.given.total == order.best.total == 100 and order.discordance.p < 1e-9


def test_two_classes_swapped_among_ten() -> None:
    label = torch.arange(1000) % 10
    swapped = torch.tensor([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
    order = label_order(label, swapped[answers(label, 10, 0.9)], 10)
    assert order.wrong and order.moved == {3: 5, 5: 3}


def test_a_good_model_stands_in_its_order() -> None:
    label = torch.arange(100) % 10
    order = label_order(label, answers(label, 10, 0.7), 10)
    assert not order.wrong and order.moved == {} and order.given == order.best


def test_guessing_has_no_order_however_often_it_is_asked() -> None:
    """In sample, the best of 10! orders is right on far more images than the given one; that must not count."""
    label = torch.arange(100) % 10
    accused = [label_order(label, answers(label, 10, 0.0, seed), 10).wrong for seed in range(200)]
    assert not any(accused)
    in_sample = label_order(label, answers(label, 10, 0.0), 10)
    chosen = torch.tensor(in_sample.outputs)[label] == answers(label, 10, 0.0)
    assert float(chosen.float().mean()) > 0.15


def test_a_constant_answer_and_a_few_images_prove_nothing() -> None:
    label = torch.arange(60) % 3
    assert not label_order(label, torch.full((60,), 2), 3).wrong
    tiny = torch.tensor([0, 1, 0, 1])
    assert not label_order(tiny, 1 - tiny, 2).wrong  # all wrong, but a coin might do that


def test_the_best_order_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        label, predicted = torch.randint(4, (2, 60), generator=generator)
        best = max(int((torch.tensor(order)[label] == predicted).sum()) for order in permutations(range(4)))
        found = torch.tensor(label_order(label, predicted, 4).outputs)
        assert int((found[label] == predicted).sum()) == best


@pytest.mark.parametrize("classes", [3, 7])
def test_classes_without_evidence_keep_their_place(classes: int) -> None:
    label = torch.tensor([0, 1] * 10)
    assert label_order(label, label, classes).moved == {}
