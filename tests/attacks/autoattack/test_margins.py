"""Losses of AutoAttack against their equations, read one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from autolora.attacks.autoattack.margins import dlr, likeliest_wrong, logit_margin, targeted_dlr, targeted_margin
from autolora.errors import InputError

classes = pytest.mark.parametrize("count", [2, 3, 4, 5, 10])


def sample(count: int, images: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and wrong classes; every order of a few classes occurs."""
    generator = torch.Generator().manual_seed(count)
    logits = 3 * torch.randn(images, count, generator=generator)
    y = torch.arange(images) % count
    target = (y + 1 + torch.randint(count - 1, (images,), generator=generator)) % count
    return logits, y, target


def each(logits: Tensor, y: Tensor, target: Tensor) -> Iterator[tuple[list[float], int, int]]:
    return zip(logits.double().tolist(), y.tolist(), target.tolist(), strict=True)


def best_wrong(z: list[float], y: int) -> float:
    return max(z[i] for i in range(len(z)) if i != y)


@classes
def test_the_margin_is_the_lead_of_a_wrong_class(count: int) -> None:
    logits, y, target = sample(count)
    expected = torch.tensor([best_wrong(z, c) - z[c] for z, c, _ in each(logits, y, target)])
    torch.testing.assert_close(logit_margin(logits, y), expected)
    expected = torch.tensor([z[t] - z[c] for z, c, t in each(logits, y, target)])
    torch.testing.assert_close(targeted_margin(logits, y, target), expected)


@classes
def test_dlr_is_equation_6_where_it_says_something(count: int) -> None:
    logits, y, target = sample(count)
    expected = []
    for z, c, _ in each(logits, y, target):
        pi = sorted(z, reverse=True)
        expected.append(-(z[c] - best_wrong(z, c)) / (pi[0] - pi[2] if count > 2 else 1))
    torch.testing.assert_close(dlr(logits, y), torch.tensor(expected))


@classes
def test_targeted_dlr_is_equation_7_or_its_form_for_three_classes(count: int) -> None:
    logits, y, target = sample(count)
    expected = []
    for z, c, t in each(logits, y, target):
        pi = sorted(z, reverse=True)
        if count == 2:
            below = pi[0] - 1
        elif count == 3:
            below = (pi[1] + pi[2]) / 2
        else:
            below = (pi[2] + pi[3]) / 2
        expected.append(-(z[c] - z[t]) / (pi[0] - below))
    torch.testing.assert_close(targeted_dlr(logits, y, target), torch.tensor(expected))


@classes
def test_a_loss_is_positive_where_the_answer_is_wrong(count: int) -> None:
    logits, y, target = sample(count)
    wrong = logits.argmax(dim=1) != y
    assert 0 < wrong.sum() < len(y)
    assert torch.equal(logit_margin(logits, y) > 0, wrong) and torch.equal(dlr(logits, y) > 0, wrong)
    assert torch.equal(targeted_dlr(logits, y, target) > 0, logits[range(60), target] > logits[range(60), y])


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_neither_shift_nor_scale_of_the_logits_matters(count: int) -> None:
    logits, y, target = sample(count)
    other = 8 * logits + torch.randn(60, 1)
    torch.testing.assert_close(dlr(other, y), dlr(logits, y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targeted_dlr(other, y, target), targeted_dlr(logits, y, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_right_answer_never_leaves_a_targeted_loss_flat(count: int, place: int) -> None:
    """The last of three classes is where the loss would be constant with the denominator of the untargeted one."""
    logits = torch.linspace(2, -1, count)[None].requires_grad_()  # sorted; class 0 is right
    loss = targeted_dlr(logits, torch.tensor([0]), torch.tensor([min(place, count - 1)]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert grad.abs().max() > 0.05


TIED = [[1.0] * 10, [1.0] * 4, [1.0] * 3, [1.0] * 2, [2.0, 2.0, 2.0, 0.0], [2.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("tied", TIED, ids=str)
@pytest.mark.parametrize("y", [0, -1])
def test_logits_that_are_alike_give_numbers(tied: list[float], y: int) -> None:
    logits, label = torch.tensor([tied]), torch.tensor([y % len(tied)])
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda z: dlr(z, label),
        lambda z: targeted_dlr(z, label, 1 - label.clamp_max(1)),
    ]
    for loss in losses:
        z = logits.clone().requires_grad_()
        value = loss(z)
        (grad,) = torch.autograd.grad(value.sum(), z)
        assert value.isfinite().all() and grad.isfinite().all()
        if len(set(tied)) == 1:
            assert value.item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, y, target = sample(10)
    low = logits.to(dtype)
    for value, expected in (
        (logit_margin(low, y), logit_margin(low.float(), y)),
        (targeted_margin(low, y, target), targeted_margin(low.float(), y, target)),
        (dlr(low, y), dlr(low.float(), y)),
        (targeted_dlr(low, y, target), targeted_dlr(low.float(), y, target)),
    ):
        assert value.dtype == torch.float32 and torch.equal(value, expected)


@classes
def test_the_likeliest_wrong_classes_come_in_order(count: int) -> None:
    logits, y, _ = sample(count)
    for wanted in (1, 2, 9):
        ours = likeliest_wrong(logits, y, wanted).tolist()
        for (z, c, _), found in zip(each(logits, y, y), ours, strict=True):
            assert found == sorted((i for i in range(count) if i != c), key=lambda i: -z[i])[:wanted]


def test_one_class_is_refused() -> None:
    logits, y = torch.ones(2, 1), torch.zeros(2, dtype=torch.long)
    with pytest.raises(InputError, match="no wrong class"):
        logit_margin(logits, y)
    with pytest.raises(InputError, match="no wrong class"):
        dlr(logits, y)
    with pytest.raises(InputError, match="no wrong class"):
        targeted_dlr(logits, y, y)
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        likeliest_wrong(torch.ones(2), y, 9)
