"""Auto-PGD against algorithm 1 read image by image, closed forms, the authors' package, and what it must not do."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.attacks.autoattack.apgd import APGD, APGDT, OBJECTIVES, Loss
from autolora.attacks.autoattack.ascent import Ascent, TargetedObjective, checkpoints
from autolora.attacks.autoattack.margins import logit_margin, targeted_dlr
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.losses import cross_entropy_each
from autolora.threat import Norm, ThreatModel

Attack = APGD | APGDT
LINF, L2 = ThreatModel("8/255"), ThreatModel("0.25", "L2")
threats = pytest.mark.parametrize("threat", [LINF, L2], ids=str)
LOSSES: dict[str, TargetedObjective] = {"ce": OBJECTIVES["ce"], "dlr": OBJECTIVES["dlr"], "targeted": targeted_dlr}
losses = pytest.mark.parametrize("loss", list(LOSSES))


def attacks(threat: ThreatModel, **options: Any) -> list[Attack]:
    return [APGD(threat, "ce", **options), APGD(threat, "dlr", **options), APGDT(threat, **options)]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def smooth(classes: int = 10) -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 24), nn.Tanh(), nn.Linear(24, classes)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return net.eval()


def batch(model: nn.Module, count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images, some pixels at an end of the range, with the labels that the model gives them."""
    x = (torch.rand(count, 3, 6, 6, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    return x, model(x).argmax(dim=1).detach()


def length(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "Linf" else flat.square().sum(dim=1).sqrt()


class Recorder:
    """A model that remembers the images it was shown."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


# algorithm 1


def naive_checkpoints(steps: int) -> list[int]:
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return [math.ceil(share * steps) for share in p[:-1]]


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 33, 50, 99, 100, 101, 1000])
def test_checkpoints_are_the_papers(steps: int) -> None:
    w = sorted(set(naive_checkpoints(steps)))
    assert checkpoints(steps) == {end: end - last for last, end in pairwise(w)}


def test_checkpoints_of_a_hundred_steps() -> None:
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}


def onto(x: list[float], natural: list[float], eps: float, norm: Norm) -> list[float]:
    """Project one image, a list of pixels: onto the ball, then the pixel range."""
    delta = [a - b for a, b in zip(x, natural, strict=True)]
    if norm == "Linf":
        delta = [min(max(d, -eps), eps) for d in delta]
    else:
        size = math.sqrt(sum(d * d for d in delta))
        delta = [d * min(1.0, eps / size) if size > 0 else 0.0 for d in delta]
    return [min(max(b + d, 0.0), 1.0) for b, d in zip(natural, delta, strict=True)]


def unit(grad: list[float], norm: Norm) -> list[float]:
    if norm == "Linf":
        return [float((g > 0) - (g < 0)) for g in grad]
    size = math.sqrt(sum(g * g for g in grad))
    return [g / size for g in grad]


class Naive:
    """Algorithm 1 for one image, on lists of numbers, with every iterate and every reason for halving."""

    def __init__(self, look: Callable[[list[float]], tuple[float, list[float], bool]], threat: ThreatModel) -> None:
        self.look = look  # pixels -> loss, gradient, whether the image has fallen
        self.eps, self.norm = threat.radius, threat.norm
        self.trajectory: list[list[float]] = []
        self.reasons: list[tuple[bool, bool]] = []

    def run(self, natural: list[float], start: list[float], steps: int, rho: float = 0.75) -> None:
        eta, w = 2 * self.eps, naive_checkpoints(steps)
        x: dict[int, list[float]] = {0: start}
        f: dict[int, float] = {}
        g: dict[int, list[float]] = {}
        f[0], g[0], self.fallen = self.look(start)
        x_max, f_max, g_max = x[0], f[0], g[0]
        gained: list[bool] = []
        etas, maxima = [eta], [f_max]  # at the checkpoints
        self.trajectory = [start]
        for k in range(steps):
            if self.fallen:
                self.best = x[k]
                return
            z = onto(
                [a + eta * b for a, b in zip(x[k], unit(g[k], self.norm), strict=True)], natural, self.eps, self.norm
            )
            if k == 0:
                x[1] = z
            else:
                triples = zip(x[k], z, x[k - 1], strict=True)
                pushed = [a + 0.75 * (b - a) + 0.25 * (a - c) for a, b, c in triples]
                x[k + 1] = onto(pushed, natural, self.eps, self.norm)
            self.trajectory.append(x[k + 1])
            f[k + 1], g[k + 1], self.fallen = self.look(x[k + 1])
            gained.append(f[k + 1] > f[k])
            if f[k + 1] > f_max:
                x_max, f_max, g_max = x[k + 1], f[k + 1], g[k + 1]
            if k + 1 in w and not self.fallen:
                window = k + 1 - w[w.index(k + 1) - 1]
                first = sum(gained[-window:]) <= rho * window  # as released
                second = etas[-1] == eta and maxima[-1] == f_max
                etas.append(eta)
                maxima.append(f_max)
                self.reasons.append((first, second))
                if first or second:
                    eta /= 2
                    x[k + 1], f[k + 1], g[k + 1] = x_max, f_max, g_max
        self.best = x[steps] if self.fallen else x_max


def naive_loss(z: Tensor, y: int, t: int, loss: str) -> Tensor:
    pi = sorted(z, reverse=True)
    if loss == "ce":
        return -z.log_softmax(dim=0)[y]  # other ways to write it round otherwise, and signs of gradients flip
    if loss == "targeted":
        return -(z[y] - z[t]) / (pi[0] - (pi[2] + pi[3]) / 2)
    return -(z[y] - max(z[i] for i in range(len(z)) if i != y)) / (pi[0] - pi[2])


def naive_look(model: nn.Module, y: int, t: int, loss: str) -> Callable[[list[float]], tuple[float, list[float], bool]]:
    def look(pixels: list[float]) -> tuple[float, list[float], bool]:
        image = torch.tensor(pixels, dtype=torch.float64, requires_grad=True)
        z = model(image.view(1, 3, 6, 6))[0]
        value = naive_loss(z.float(), y, t, loss)
        (grad,) = torch.autograd.grad(value, image)
        return value.item(), grad.tolist(), int(z.argmax()) != y

    return look


def starts(threat: ThreatModel, x: Tensor) -> Tensor:
    return threat.project(x + 0.02 * torch.randn_like(x), x)


@threats
@losses
def test_it_is_algorithm_1_step_by_step(threat: ThreatModel, loss: str) -> None:
    model = smooth().double()
    threat = replace(threat, eps=threat.radius / 2)
    x, y = batch(model, 5, torch.float64)
    target, start, steps = (y + 3) % 10, starts(threat, x), 30
    stood = halved = 0
    for i in range(len(x)):
        rows, victim = slice(i, i + 1), Recorder(model)
        image, loss_there, fell = Ascent(threat, LOSSES[loss], steps)(
            Victim(victim), x[rows], y[rows], target[rows], start[rows]
        )
        naive = Naive(naive_look(model, int(y[i]), int(target[i]), loss), threat)
        naive.run(x[i].flatten().tolist(), start[i].flatten().tolist(), steps)
        assert bool(fell) == naive.fallen
        expected = torch.tensor(naive.trajectory, dtype=torch.float64).view(-1, 3, 6, 6)
        torch.testing.assert_close(torch.cat(victim.seen), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(image.flatten(), torch.tensor(naive.best, dtype=torch.float64), rtol=0, atol=1e-6)
        if not naive.fallen:
            shown = LOSSES[loss](model(image), y[rows], target[rows])
            torch.testing.assert_close(loss_there, shown.detach())
        stood, halved = stood + (not naive.fallen), halved + sum(first or second for first, second in naive.reasons)
    assert stood >= 2 and halved >= 4  # or the test says little


def scripted(script: Sequence[float], weight: Tensor) -> TargetedObjective:
    """A loss that takes its values from a script, and its gradient from the logits."""
    values = iter(script)

    def objective(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        slope = (logits * weight).sum(dim=1)
        return slope - slope.detach() + next(values)

    return objective


@threats
def test_both_conditions_halve_the_step_size(threat: ThreatModel) -> None:
    """Scripts of losses make every combination of the two conditions occur; the iterates show the step size."""
    model, steps = smooth().double(), 100
    x, y = batch(model, 1, torch.float64)
    with torch.no_grad():
        dict(model.named_parameters())["5.bias"][y] += 100  # it never falls
    weight, start, met = torch.randn(10), starts(threat, x), set()
    for trial in range(8):
        generator = torch.Generator().manual_seed(trial)
        # rises of 1 or 2 in most steps, and falls that undo them: the best may stay what it was
        up = torch.rand(steps + 1, generator=generator) < (0.6, 0.7, 0.8, 0.9)[trial % 4]
        change = torch.where(up, 1.0, -5.0 if trial % 3 else -1.0)
        script = change.cumsum(dim=0).tolist()
        victim = Recorder(model)
        Ascent(threat, scripted(script, weight), steps)(Victim(victim), x, y, y, start)

        values = iter(script)

        def look(pixels: list[float], values: Iterator[float] = values) -> tuple[float, list[float], bool]:
            image = torch.tensor(pixels, dtype=torch.float64, requires_grad=True)
            (grad,) = torch.autograd.grad((model(image.view(1, 3, 6, 6))[0] * weight).sum(), image)
            return next(values), grad.tolist(), False

        naive = Naive(look, threat)
        naive.run(x.flatten().tolist(), start.flatten().tolist(), steps)
        expected = torch.tensor(naive.trajectory, dtype=torch.float64).view(-1, 3, 6, 6)
        torch.testing.assert_close(torch.cat(victim.seen), expected, rtol=0, atol=1e-9)
        met.update(naive.reasons)
    assert met == {(False, False), (False, True), (True, False), (True, True)}


@threats
@losses
def test_an_image_does_not_see_the_others(threat: ThreatModel, loss: str) -> None:
    model = smooth().double()
    x, y = batch(model, 24, torch.float64)
    target, start, ascent = (y + 3) % 10, starts(threat, x), Ascent(threat, LOSSES[loss], 25)
    image, value, fell = ascent(Victim(model), x, y, target, start)
    alone = [ascent(Victim(model), *(t[i : i + 1] for t in (x, y, target, start))) for i in range(len(x))]
    assert 2 < fell.sum() < 22
    assert torch.equal(fell, torch.cat([one[2] for one in alone]))
    torch.testing.assert_close(image, torch.cat([one[0] for one in alone]), rtol=0, atol=1e-6)
    torch.testing.assert_close(value, torch.cat([one[1] for one in alone]))


# the attacks


@threats
def test_what_has_fallen_leaves_the_batch(threat: ThreatModel) -> None:
    net = smooth()
    x, y = batch(net, 40)
    y[:5] = (y[:5] + 1) % 10  # wrong from the start
    for attack in attacks(threat, steps=20):
        model = Recorder(net)
        x_adv, fallen = attack(Victim(model), x, y)
        sizes = [len(seen) for seen in model.seen]
        assert sizes[:2] == [40, 35] and sizes == sorted(sizes, reverse=True)
        assert 5 < fallen.sum() < 40 and sizes[-1] >= (~fallen).sum() and sizes[-1] < 35
        assert torch.equal(x_adv[:5], x[:5]) and fallen[:5].all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("eps", [0, "8/255", 0.5, 1])
def test_results_are_images_of_the_set_and_verdicts_the_models(norm: Norm, classes: int, eps: float | str) -> None:
    net, threat = smooth(classes), ThreatModel(eps, norm)
    x, y = batch(net, 12)
    y[0] = (y[0] + 1) % classes
    for attack in attacks(threat, steps=8):
        given = x.clone().requires_grad_()
        x_adv, fallen = attack(Victim(net), given, y)
        assert x_adv.shape == x.shape and fallen.shape == y.shape and fallen.dtype == torch.bool
        assert length(x_adv - x, norm).max() <= threat.radius + 1e-6
        assert x_adv.min() >= 0 and x_adv.max() <= 1
        assert torch.equal(net(x_adv).argmax(dim=1) != y, fallen)
        assert not x_adv.requires_grad and given.grad is None and torch.equal(given, x)
        if eps == 0:
            assert torch.equal(x_adv, x) and fallen.sum() == 1


@threats
def test_nothing_of_the_model_changes(threat: ThreatModel) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 4)).eval()
    model[2].train()
    model[0].weight.requires_grad_(False)
    x, y = batch(model, 8)
    torch.autograd.backward(F.cross_entropy(model(x), y))
    state, modes = deepcopy(model.state_dict()), [module.training for module in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for attack in attacks(threat, steps=3):
        with torch.no_grad():
            attack(Victim(model), x, y)
            assert not torch.is_grad_enabled()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert grads[0] is None and model[0].weight.grad is None and not model[0].weight.requires_grad
    for before, parameter in zip(grads[1:], list(model.parameters())[1:], strict=True):
        assert before is not None and parameter.grad is not None and torch.equal(before, parameter.grad)


@threats
def test_the_generator_settles_everything(threat: ThreatModel) -> None:
    model = smooth()
    x, y = batch(model, 20)
    for attack in attacks(threat, steps=3, restarts=2):
        state = torch.get_rng_state()
        first = attack(Victim(model), x, y, torch.Generator().manual_seed(1))
        second = attack(Victim(model), x, y, torch.Generator().manual_seed(1))
        other = attack(Victim(model), x, y, torch.Generator().manual_seed(2))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert not torch.equal(first[0], other[0])


@threats
def test_a_start_lies_on_the_surface_in_any_direction(threat: ThreatModel) -> None:
    x, y = torch.full((300, 3, 4, 4), 0.5), torch.zeros(300, dtype=torch.long)
    for attack in attacks(threat, steps=1):
        model = Recorder(lambda x: torch.stack([x.sum(dim=(1, 2, 3)) * 0 + 1, *[x.sum(dim=(1, 2, 3)) * 0] * 3], dim=1))
        attack(Victim(model), x, y)
        delta = model.seen[1] - x
        torch.testing.assert_close(length(delta, threat.norm).float(), torch.full((300,), threat.radius))
        expected = threat.radius / math.sqrt(3 if threat.norm == "Linf" else 48)
        assert delta.mean().abs() < 0.05 * expected and delta.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("classes", "targets", "expected"), [(2, 9, 1), (3, 9, 2), (10, 9, 9), (12, 9, 9), (10, 4, 4)])
def test_there_are_as_many_targets_as_asked_or_wrong_classes(classes: int, targets: int, expected: int) -> None:
    model = Recorder(smooth(classes))
    x, y = batch(model.model, 1)  # type: ignore[arg-type]
    model.seen.clear()
    _, fallen = APGDT(ThreatModel(1e-6), steps=4, targets=targets, restarts=2)(Victim(model), x, y)
    assert not fallen.any() and len(model.seen) == 1 + expected * 2 * 5


class Linear(nn.Module):
    """Logits that are linear in the image: here the worst image of a ball is known."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 12))
        self.bias = nn.Parameter(torch.randn(classes) / 10)

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T + self.bias


def margins(model: Linear, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """How far the nearest wrong class is, in eps: (z_y - z_k) / ||w_y - w_k||_dual, the least of all k (N,)."""
    logits = model(x)
    gap = logits.gather(1, y[:, None]) - logits
    between = (model.weight[y][:, None] - model.weight[None]).abs()
    dual = between.sum(dim=2) if norm == "Linf" else between.square().sum(dim=2).sqrt()
    return (gap / dual).masked_fill(F.one_hot(y, logits.shape[1]).bool(), torch.inf).amin(dim=1).detach()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.02), ("Linf", 0.1), ("L2", 0.05), ("L2", 0.2)])
def test_between_two_classes_it_finds_the_robust_accuracy(norm: Norm, eps: float) -> None:
    model = Linear(classes=2)
    x = torch.empty(300, 3, 2, 2).uniform_(0.21, 0.79)  # no radius here reaches the ends of the pixel range
    y = model(x).argmax(dim=1)
    robust = margins(model, x, y, norm) > eps
    assert 15 < robust.sum() < 285
    for attack in attacks(ThreatModel(eps, norm)):
        assert torch.equal(attack(Victim(model), x, y)[1], ~robust)


@pytest.mark.parametrize("classes", [3, 4, 6])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.15)])
def test_with_all_targets_it_finds_the_robust_accuracy(classes: int, norm: Norm, eps: float) -> None:
    model = Linear(classes)
    x = torch.empty(200, 3, 2, 2).uniform_(0.21, 0.79)
    y = model(x).argmax(dim=1)
    robust = margins(model, x, y, norm) > eps
    assert 15 < robust.sum() < 185
    _, fallen = APGDT(ThreatModel(eps, norm), steps=50)(Victim(model), x, y)
    assert not (fallen & robust).any()
    assert (fallen != ~robust).sum() <= 1  # the ratio may rise by its denominator alone


def test_targets_are_the_likeliest_wrong_classes() -> None:
    """Only the third likeliest wrong class can be reached: the two before it do not depend on the image."""
    model, y = Linear(classes=7), torch.zeros(20, dtype=torch.long)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[4] = 1
        model.bias.copy_(torch.tensor([3.0, 1.0, 2.9, 2.8, 2.7, 0.0, -1.0]))
    x = torch.empty(20, 3, 2, 2).uniform_(0.45, 0.55)
    x = x - (x - 0.5).mean(dim=(1, 2, 3), keepdim=True)  # class 4 has 2.7, and gains 12 times the radius
    model = model.eval()
    found = [APGDT(ThreatModel(0.03), steps=15, targets=t)(Victim(model), x, y)[1].sum().item() for t in (1, 2, 3)]
    assert found == [0, 0, 20]


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
@threats
def test_it_is_no_weaker_than_projected_gradients_on_the_margin(threat: ThreatModel, classes: int) -> None:
    model = smooth(classes)
    x, y = batch(model, 60)
    pgd = PGD(threat, steps=40, step_size=threat.radius / 8)
    robust = model(pgd(model, x, y, logit_margin)).argmax(dim=1) == y
    assert 5 < robust.sum() < 55
    assert (~APGDT(threat, steps=40)(Victim(model), x, y)[1]).sum() <= robust.sum()
    # towards no class in particular, it may lose sight of the one that is near
    assert (~APGD(threat, "dlr", steps=40)(Victim(model), x, y)[1]).sum() <= robust.sum() + 2


def test_restarts_keep_the_worst_image() -> None:
    model, threat = smooth(), ThreatModel("3/255")
    x, y = batch(model, 30)
    attack = APGD(threat, steps=2)
    once, fallen_once = attack(Victim(model), x, y, torch.Generator().manual_seed(0))
    worst, fallen = replace(attack, restarts=4)(Victim(model), x, y, torch.Generator().manual_seed(0))
    assert not (fallen_once & ~fallen).any() and fallen.sum() < 30
    assert torch.equal(model(worst).argmax(dim=1) != y, fallen)
    gain = (cross_entropy_each(model(worst), y) - cross_entropy_each(model(once), y))[~fallen]
    assert (gain >= -1e-6).all() and (gain > 1e-6).any()


# search and model


def test_only_the_models_verdict_counts() -> None:
    model = smooth()
    x, y = batch(model, 40)
    for attack in attacks(ThreatModel("4/255"), steps=6):
        for search in (
            lambda x: model(x).bfloat16(),
            lambda x: model(x).roll(1, dims=1),
            lambda x: model(x) * torch.nan,
        ):
            for victim in (Victim(model, search), Victim(model, slope=search)):
                x_adv, fallen = attack(victim, x, y)
                assert torch.equal(model(x_adv).argmax(dim=1) != y, fallen)
                assert x_adv.isfinite().all() and length(x_adv - x, "Linf").max() <= 4 / 255 + 1e-6
                assert not fallen.all()


@threats
def test_a_search_that_never_sees_an_image_fall_is_checked_by_the_model(threat: ThreatModel) -> None:
    model = smooth()
    x, y = batch(model, 40)

    def blind(x: Tensor) -> Tensor:
        return model(x) + 100 * F.one_hot(y, 10)

    for victim in (Victim(model, blind), Victim(model, slope=blind)):
        x_adv, fallen = APGD(threat, "dlr", steps=10)(victim, x, y)
        assert fallen.sum() > 5 and torch.equal(model(x_adv).argmax(dim=1) != y, fallen)


@threats
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_where_the_search_overflows_is_not_the_best_point(threat: ThreatModel, broken: float) -> None:
    net, threat = smooth(), replace(threat, eps=threat.radius / 50)  # none falls
    x, y = batch(net, 20)
    natural, calls = cross_entropy_each(net(x), y), iter(range(1000))

    def search(x: Tensor) -> Tensor:
        logits = net(x)
        return logits.index_fill(1, (y[:1] + 1) % 10, broken) if next(calls) == 0 else logits

    attack, gains = APGD(threat, steps=20), []
    for victim in (Victim(net), Victim(net, search)):
        x_adv, fallen = attack(victim, x, y, torch.Generator().manual_seed(0))
        assert fallen.sum() <= 2
        gains.append(cross_entropy_each(net(x_adv), y) - natural)
    torch.testing.assert_close(gains[1], gains[0], rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_no_robustness(broken: float) -> None:
    net = smooth()
    x, y = batch(net, 20)
    y[:10] = 0  # what argmax makes of logits that are all NaN

    def model(x: Tensor) -> Tensor:
        dark = x[:, :1, 0, 0] < 0.5
        return torch.where(dark, torch.tensor(broken), net(x))

    x[:, :, 0, 0] = torch.where(torch.arange(20) % 2 == 0, 0.1, 0.9)[:, None]
    y = torch.where(torch.arange(20) % 2 == 0, 0, net(x).argmax(dim=1))
    for attack in attacks(ThreatModel("2/255"), steps=5):
        x_adv, fallen = attack(Victim(model), x, y)
        assert fallen[::2].all() and torch.equal(x_adv[::2], x[::2])
        assert not fallen[1::2].all() and x_adv.isfinite().all()


@threats
def test_gradients_that_are_not_numbers_stay_out_of_the_images(threat: ThreatModel) -> None:
    net = smooth()
    x, _ = batch(net, 20)
    x[:, 0, 0, 0] = torch.where(torch.arange(20) % 2 == 0, 0.1, 0.9)
    y = net(x).argmax(dim=1)

    def model(x: Tensor) -> Tensor:
        """The same logits; the gradient of every second image is NaN all over, and of one pixel in the others."""
        dark, nothing = x[:, 0, 0, 0] < 0.5, (x[:, 1, 1, 1] * 0).sqrt()
        nothing = nothing.index_add(0, dark.nonzero().squeeze(1), (x[dark].sum(dim=(1, 2, 3)) * 0).sqrt())
        return net(x) + nothing[:, None]

    for attack in attacks(threat, steps=20):
        x_adv, fallen = attack(Victim(model), x, y)
        assert x_adv.isfinite().all() and length(x_adv - x, threat.norm).max() <= threat.radius + 1e-6
        assert torch.equal(net(x_adv).argmax(dim=1) != y, fallen)
        assert fallen[1::2].sum() >= 3  # one pixel is no loss


def test_logits_without_a_gradient_are_refused() -> None:
    net = smooth()
    x, y = batch(net, 4)

    def rounded(x: Tensor) -> Tensor:
        return net((x.detach() * 255).round() / 255)

    for model in (rounded, torch.no_grad()(net.forward)):
        for attack in attacks(LINF):
            with pytest.raises(InputError, match="no gradient"):
                attack(Victim(model), x, y)


def test_one_class_is_refused() -> None:
    x, y = torch.rand(2, 3, 6, 6), torch.zeros(2, dtype=torch.long)
    for attack in attacks(LINF):
        with pytest.raises(InputError, match="no wrong class"):
            attack(Victim(lambda x: x.flatten(1)[:, :1]), x, y)


@pytest.mark.parametrize(
    "option",
    [{"steps": 0}, {"restarts": 0}, {"rho": 0.0}, {"rho": 1.0}, {"rho": math.nan}, {"loss": "margin"}, {"targets": 0}],
    ids=str,
)
def test_an_option_that_cannot_work_is_refused_by_name(option: dict[str, Any]) -> None:
    (name,) = option
    for kind in (APGD, APGDT):
        if name in kind.__dataclass_fields__:
            with pytest.raises(InputError, match=name):
                kind(LINF, **option)


# the authors' package


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["ce", "dlr", "targeted"])
def test_it_is_as_strong_as_the_authors_package(norm: Norm, name: str) -> None:
    theirs = pytest.importorskip("pyautoattack.autopgd_base", reason="the authors' package is not installed")
    model, threat = smooth(), LINF if norm == "Linf" else L2
    x, y = batch(model, 100)  # an image is a point
    options: dict[str, Any] = {"n_iter": 100, "norm": norm, "eps": threat.radius, "seed": 0, "device": "cpu"}
    options["logger"] = logging.getLogger(__name__)
    attack: Attack
    if name == "targeted":
        # four targets, to be quick
        other, attack = theirs.APGDAttack_targeted(model, n_target_classes=4, **options), APGDT(threat, targets=4)
    else:
        loss: Loss = "ce" if name == "ce" else "dlr"
        other, attack = theirs.APGDAttack(model, loss=loss, **options), APGD(threat, loss)
    expected = (model(other.perturb(x, y)).argmax(dim=1) == y).sum().item()
    _, fallen = attack(Victim(model), x, y, torch.Generator().manual_seed(0))
    assert 20 < expected < 80
    assert abs((~fallen).sum().item() - expected) <= 1
