"""FAB-T against the closed form of linear models, Algorithm 1 written out, and the reference package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.model import wrong
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.threat import Norm, ThreatModel

norms = pytest.mark.parametrize("norm", ["Linf", "L2"])


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(classes: int = 4, channels: int = 3) -> nn.Sequential:
    """Any size of image, batch norm with statistics of its own, and a boundary that bends."""
    norm = nn.BatchNorm2d(6)
    nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    layers = (nn.Conv2d(channels, 6, 3, padding=1), norm, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(24, classes)).requires_grad_(False).eval()


class Seen:
    """A model that remembers the images it was shown."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.images: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.images.append(x.detach().clone())
        return self.model(x)


def length(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "Linf" else flat.square().sum(dim=1).sqrt()


def linear(classes: int) -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear model and images far from the walls of the box, labelled as the model sees them."""
    layer = nn.Linear(60, classes).requires_grad_(False)
    x = torch.rand(64, 3, 4, 5) * 0.2 + 0.4
    layer.bias.copy_(-(layer.weight @ x.flatten(1).mean(dim=0)))  # all classes are about as likely
    return layer, x, layer(x.flatten(1)).argmax(dim=1)


def closed_form(layer: nn.Linear, x: Tensor, y: Tensor, norm: Norm, targets: int) -> Tensor:
    """Distance (N,) to the nearest of the boundaries to the most likely wrong classes: lead / dual norm."""
    logits = layer(x.flatten(1)).double()
    rows, weight = torch.arange(len(x)), layer.weight.double()
    difference = weight[y][:, None] - weight[None]
    dual = difference.abs().sum(dim=2) if norm == "Linf" else difference.square().sum(dim=2).sqrt()
    leads = logits[rows, y][:, None] - logits
    leads[rows, y] = torch.inf
    nearest = leads.argsort(dim=1)[:, :targets]
    return (leads / dual).gather(1, nearest).amin(dim=1)


@norms
@pytest.mark.parametrize(("classes", "targets"), [(2, 9), (3, 9), (3, 1), (12, 9), (12, 11)])
@pytest.mark.parametrize(("eta", "close"), [(1.05, 0.01), (1.001, 0.002)])
def test_a_linear_model_is_attacked_as_its_closed_form_says(
    norm: Norm, classes: int, targets: int, eta: float, close: float
) -> None:
    layer, x, y = linear(classes)
    aimed, nearest = (closed_form(layer, x, y, norm, count) for count in (targets, classes - 1))
    eps = float(nearest.quantile(0.6))
    attack = FABT(ThreatModel(eps, norm), steps=25, targets=targets, eta=eta)
    x_adv, fallen = attack(Victim(lambda images: layer(images.flatten(1))), x, y)
    # a step goes beyond the boundary by design, so images at just that distance may be missed
    clear = ((nearest / eps - 1).abs() > close) & ((aimed / eps - 1).abs() > close)
    assert clear.sum() > 40 and (nearest < eps).any() and (nearest > eps).any()
    assert fallen[clear & (aimed < eps)].all()
    assert not fallen[clear & (nearest > eps)].any()
    found = length(x_adv - x, norm)[fallen]
    assert (found >= nearest[fallen] * (1 - 1e-5)).all() and (found <= eps + 1e-6).all()


def shortest(x: Tensor, normal: Tensor, value: float, norm: Norm) -> Tensor:
    """The way of one image (C, H, W) to a hyperplane within the box, by bisection."""
    speed = -float(np.sign(value)) * (normal.sign() if norm == "Linf" else normal)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        beyond = (value + float((normal * ((x + middle * speed).clamp(0, 1) - x)).sum())) * value <= 0
        low, high = (low, middle) if beyond else (middle, high)
    return (x + high * speed).clamp(0, 1) - x


def algorithm_1(model: nn.Module, x: Tensor, y: int, target: int, attack: FABT) -> list[Tensor]:
    """The images that the paper's Algorithm 1 comes to, one after the other, for one image and one target."""
    here, came_to, norm = x, [], attack.threat.norm
    for _ in range(attack.steps):
        there = here.clone().requires_grad_()
        logits = model(there[None])[0]
        (gradient,) = torch.autograd.grad(logits[target] - logits[y], there)
        value = float((logits[target] - logits[y]).detach())
        d = shortest(here, gradient, value, norm)
        d_0 = shortest(x, gradient, value + float((gradient * (x - here)).sum()), norm)
        a, a_0 = float(length(d[None], norm)), float(length(d_0[None], norm))
        alpha = min(a / (a + a_0), attack.alpha_max)
        here = ((1 - alpha) * (here + attack.eta * d) + alpha * (x + attack.eta * d_0)).clamp(0, 1)
        came_to.append(here)
        if int(model(here[None]).argmax()) != y:
            here = (1 - attack.beta) * x + attack.beta * here
    return came_to


@norms
@pytest.mark.parametrize("options", [{}, {"alpha_max": 0.4, "eta": 1.2, "beta": 0.7}], ids=["defaults", "others"])
def test_the_walk_is_that_of_algorithm_1(norm: Norm, options: dict[str, Any]) -> None:
    model = small(classes=3).double()
    x = (torch.rand(2, 3, 4, 5, dtype=torch.float64) * 1.2 - 0.1).clamp(0, 1)
    model[5].bias -= model(x).mean(dim=0)  # so that the box reaches the boundaries of all classes
    y = model(x).argmax(dim=1)
    # so small a ball that no image falls, and all walk to the end
    attack = replace(FABT(ThreatModel(1e-7, norm), steps=8), **options)
    seen = Seen(model)
    _, fallen = attack(Victim(seen), x, y)
    assert not fallen.any()
    order = model(x).argsort(dim=1, descending=True)
    for rank in (1, 2):
        judged = torch.stack(seen.images[2 + 16 * (rank - 1) :: 2][:8], dim=1)
        for row in range(len(x)):
            expected = algorithm_1(model, x[row], int(y[row]), int(order[row, rank]), attack)
            torch.testing.assert_close(judged[row], torch.stack(expected), atol=1e-6, rtol=0)


def test_wrong_classes_are_tried_in_the_order_of_their_likelihood() -> None:
    """The likeliest wrong class is far and the second is near: it takes two targets to see that."""
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.2], [10.0, 0.0]])
    bias = torch.tensor([0.0, -0.2, -5.3])

    def model(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight.T + bias

    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    assert model(x).argsort(descending=True).tolist() == [[0, 1, 2]]
    attack = FABT(ThreatModel(0.1), steps=10)
    assert not replace(attack, targets=1)(Victim(model), x, y)[1]
    assert replace(attack, targets=2)(Victim(model), x, y)[1]


@given(
    st.sampled_from(("Linf", "L2")),
    st.sampled_from((0.0, 1e-3, 8 / 255, 0.2, 1.0)),
    st.sampled_from(((1, 1, 1), (3, 1, 1), (1, 2, 5), (3, 7, 4))),
    st.integers(2, 5),
    st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_what_has_fallen_lies_in_the_set_and_is_wrong(
    norm: Norm, eps: float, shape: tuple[int, int, int], classes: int, restarts: int
) -> None:
    model = small(classes, channels=shape[0])
    x, y = (torch.rand(6, *shape) * 1.4 - 0.2).clamp(0, 1), torch.arange(6) % classes
    seen = Seen(model)
    x_adv, fallen = FABT(ThreatModel(eps, norm), steps=3, restarts=restarts)(Victim(seen), x, y)
    assert all(images.min() >= 0 and images.max() <= 1 for images in seen.images)
    assert x_adv.shape == x.shape and fallen.shape == y.shape and not x_adv.requires_grad
    assert length(x_adv - x, norm).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert torch.equal(x_adv[~fallen], x[~fallen])
    assert (model(x_adv).argmax(dim=1) != y)[fallen].all()
    at_first = model(x).argmax(dim=1) != y
    assert fallen[at_first].all() and torch.equal(x_adv[at_first], x[at_first])


@norms
def test_an_image_has_the_same_fate_alone_and_in_company(norm: Norm) -> None:
    model = small().double()
    x = torch.rand(10, 3, 6, 6, dtype=torch.float64)
    model[5].bias -= model(x).mean(dim=0)  # so that each image has its own order of wrong classes
    y = model(x).argmax(dim=1)
    y[0] = (y[0] + 1) % 4  # wrong from the start
    attack = FABT(ThreatModel(0.03 if norm == "Linf" else 0.25, norm), steps=8)
    x_adv, fallen = attack(Victim(model), x, y)
    assert fallen[1:].sum() >= 4 and not fallen.all()
    for row in range(len(x)):
        alone, fell = attack(Victim(model), x[row : row + 1], y[row : row + 1])
        assert fell == fallen[row]
        torch.testing.assert_close(alone[0], x_adv[row], atol=1e-9, rtol=0)


def test_an_image_that_has_fallen_is_not_shown_again() -> None:
    seen = Seen(lambda x: torch.stack([x.mean(dim=(1, 2, 3)), torch.full((len(x),), 0.5)], dim=1))
    x = torch.stack([torch.full((1, 2, 2), value) for value in (0.51, 0.3, 0.9, 0.55)])
    _, fallen = FABT(ThreatModel("0.1"), steps=6)(Victim(seen), x, torch.zeros(4, dtype=torch.long))
    assert fallen.tolist() == [True, True, False, True]
    assert [len(images) for images in seen.images] == [4] + [3] * 2 + [1] * 10


def test_a_search_of_its_own_does_not_count() -> None:
    layer, x, y = linear(3)
    eps = float(closed_form(layer, x, y, "Linf", 2).quantile(0.5))
    attack = FABT(ThreatModel(eps), steps=5)

    def search(images: Tensor) -> Tensor:
        return layer(images.flatten(1)).bfloat16()

    label = int(y.mode().values)
    one = x[y == label], y[y == label]
    assert attack(Victim(search), *one)[1].any()
    steady = Victim(lambda images: F.one_hot(torch.full((len(images),), label), 3).float(), search)
    x_adv, fallen = attack(steady, *one)
    assert not fallen.any() and torch.equal(x_adv, one[0])

    seen = Seen(lambda images: layer(images.flatten(1)))
    x_adv, fallen = attack(Victim(seen, search), x, y)
    assert fallen.any() and x_adv.dtype == torch.float32
    assert wrong(layer(x_adv.flatten(1)), y)[fallen].all()
    assert sum(map(len, seen.images)) < 5 * len(x)  # only what the search takes for fallen


def test_logits_that_are_no_numbers_fall() -> None:
    def model(x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([mean - 0.5, torch.where(mean > 0.9, torch.nan, 0.0), torch.full_like(mean, -1.0)], dim=1)

    x = torch.stack([torch.full((1, 2, 2), value) for value in (0.95, 0.52, 0.7)])
    x_adv, fallen = FABT(ThreatModel("0.05"), steps=5)(Victim(model), x, torch.zeros(3, dtype=torch.long))
    assert fallen.tolist() == [True, True, False]
    assert x_adv.isfinite().all()


@norms
def test_a_walk_comes_back_from_where_there_are_no_numbers(norm: Norm) -> None:
    """The first step goes far too far, to where logits are NaN; steps back from there lead to the boundary at last."""

    def model(x: Tensor) -> Tensor:
        beyond = x.flatten(1).squeeze(1) - 0.5
        root = beyond.sign() * beyond.abs().sqrt()
        return torch.stack([torch.where(beyond < -0.1, torch.nan, root), torch.zeros_like(root)], dim=1)

    x, y = torch.full((1, 1, 1, 1), 0.9), torch.zeros(1, dtype=torch.long)
    x_adv, fallen = FABT(ThreatModel(0.45, norm), steps=30)(Victim(model), x, y)
    assert fallen and 0.45 <= x_adv <= 0.5


@norms
def test_gradients_that_are_no_numbers_stay_where_they_are(norm: Norm) -> None:
    """The gradient of a root at 0, times 0: in one pixel of the first image, and in all of the second."""

    def model(x: Tensor) -> Tensor:
        mean, pixel = x.mean(dim=(1, 2, 3)), x[:, 0, 0, 0]
        nothing = 0 * pixel.abs().sqrt() + 0 * (mean - 0.25).abs().sqrt()
        return torch.stack([mean + nothing, torch.full_like(mean, 0.5)], dim=1)

    x = torch.stack([torch.full((1, 3, 3), value) for value in (0.65, 0.25, 0.6, 0.9)])
    x[0, 0, 0, 0] = 0.0
    x_adv, fallen = FABT(ThreatModel(0.2 if norm == "Linf" else 0.5, norm), steps=1)(
        Victim(model), x, torch.tensor([0, 1, 0, 0])
    )
    assert fallen.tolist() == [True, False, True, False]
    assert x_adv.isfinite().all() and x_adv[0, 0, 0, 0] == 0


def test_a_random_start_finds_what_a_flat_image_hides() -> None:
    """The gradient is zero at the image and up to 0.01 away; one run does not leave it, others start beyond."""

    def model(x: Tensor) -> Tensor:
        beyond = (x.flatten(1).squeeze(1) - 0.51).relu()
        return torch.stack([torch.full_like(beyond, 0.01), beyond], dim=1)

    x, y = torch.full((4, 1, 1, 1), 0.5), torch.zeros(4, dtype=torch.long)
    attack = FABT(ThreatModel(0.05), steps=5)
    assert not attack(Victim(model), x, y)[1].any()
    verdicts = [replace(attack, restarts=8)(Victim(model), x, y, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert verdicts[0][1].all() and torch.equal(verdicts[0][0], verdicts[1][0])


@norms
def test_random_starts_lie_within_half_of_eps(norm: Norm) -> None:
    """Seen where the model is flat, so that no image falls and none moves."""
    seen = Seen(lambda x: torch.stack([x.mean(dim=(1, 2, 3)) * 0 + 1, torch.zeros(len(x))], dim=1))
    x, eps, state = torch.rand(8, 3, 4, 5) * 0.2 + 0.4, 1e-2, torch.get_rng_state()
    attack = FABT(ThreatModel(eps, norm), steps=1, restarts=3)
    attack(Victim(seen), x, torch.zeros(8, dtype=torch.long), torch.Generator().manual_seed(1))
    assert torch.equal(state, torch.get_rng_state())
    _, first, _, second, _, third, _ = seen.images
    assert torch.equal(first, x) and not torch.equal(second, third)
    for start in (second, third):
        assert (length(start - x, norm) <= eps / 2 + 1e-6).all()
        assert (length(start - x, norm) >= eps / 4).all()


@norms
def test_nothing_of_the_model_changes(norm: Norm) -> None:
    model = small().requires_grad_()
    model[2].train()
    x, y = torch.rand(6, 3, 6, 6), torch.arange(6) % 4
    torch.autograd.backward(F.cross_entropy(model(x), y))
    model[5].bias.grad = None
    state = deepcopy(model.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    natural = x.clone()

    FABT(ThreatModel(0.01, norm), steps=3)(Victim(model), x, y)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for before, parameter in zip(grads, model.parameters(), strict=True):
        assert parameter.requires_grad
        assert parameter.grad is None if before is None else torch.equal(before, parameter.grad)  # type: ignore[arg-type]
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(x, natural) and not x.requires_grad


def test_the_defaults_are_those_of_the_standard_version() -> None:
    """100 steps for each of 9 targets, two forward passes a step, and one for the natural images."""
    seen = Seen(lambda x: x.flatten(1).mean(dim=1, keepdim=True) * 0 - torch.arange(12.0))
    FABT(ThreatModel("8/255"))(Victim(seen), torch.rand(1, 3, 2, 2), torch.zeros(1, dtype=torch.long))
    assert len(seen.images) == 1 + 9 * 100 * 2


@pytest.mark.parametrize(
    "options",
    [
        *({"steps": 0}, {"targets": 0}, {"restarts": 0}, {"alpha_max": 1.1}, {"alpha_max": -0.1}),
        *({"eta": 0.9}, {"eta": float("nan")}, {"beta": 1.0}, {"beta": 0.0}),
    ],
    ids=str,
)
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        replace(FABT(ThreatModel("8/255")), **options)


@norms
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_the_reference_package_says_the_same(norm: Norm, share: float) -> None:
    reference = pytest.importorskip("pyautoattack.fab_pt")
    model = small(classes=5)
    x = torch.rand(40, 3, 6, 6)
    y = model(x).argmax(dim=1)
    theirs = reference.FABAttack_PT(
        model, norm=norm, n_restarts=1, n_iter=20, eps=9.0, targeted=True, n_target_classes=4, device="cpu"
    )
    # its attack minimises the distance whatever eps is, one target at a time
    distance = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for rank in range(2, 6):
        theirs.target_class = rank
        found = theirs.attack_single_run(x, y, is_targeted=True)
        adversarial = model(found).argmax(dim=1) != y
        distance = torch.where(adversarial, length(found - x, norm).minimum(distance), distance)
    eps = float(distance.quantile(share))
    fallen = FABT(ThreatModel(eps, norm), steps=20)(Victim(model), x, y)[1]
    clear = (distance / eps - 1).abs() > 1e-3  # rounding is not the same in both
    assert clear.sum() > 35
    assert torch.equal(fallen[clear], (distance <= eps)[clear])
