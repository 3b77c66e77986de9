"""Projected gradient descent against closed forms, a loop written out, and what an attack must not do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autolora.attacks import PGD, Objective, parse_attack
from autolora.attacks.autoattack.ascent import Ascent
from autolora.attacks.autoattack.fab import FABT
from autolora.attacks.pgd import Start
from autolora.attacks.victim import Victim
from autolora.errors import InputError
from autolora.losses import cross_entropy_each, kl_each
from autolora.models import evaluating
from autolora.threat import Norm, ThreatModel

STARTS: tuple[Start, ...] = ("uniform", "gaussian", "natural")
LINF, L2 = ThreatModel("8/255"), ThreatModel("0.5", "L2")
threats = pytest.mark.parametrize("threat", [LINF, L2], ids=str)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small() -> nn.Sequential:
    """Convolution, batch norm with statistics of its own, dropout, and three classes."""
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    layers = (nn.Conv2d(3, 4, 3), norm, nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 3))
    return nn.Sequential(*layers)


def batch(count: int = 8) -> tuple[Tensor, Tensor]:
    return (torch.rand(count, 3, 6, 6) * 1.4 - 0.2).clamp(0, 1), torch.arange(count) % 3


def length(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "Linf" else flat.square().sum(dim=1).sqrt()


@given(st.sampled_from(("Linf", "L2")), st.floats(0, 1), st.sampled_from(STARTS), st.integers(0, 3), st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_the_result_lies_in_the_set(norm: Norm, eps: float, start: Start, steps: int, restarts: int) -> None:
    pgd = PGD(ThreatModel(eps, norm), steps, step_size=0.3, start=start, restarts=restarts)
    x, y = batch()
    x_adv = pgd(small().eval(), x, y)
    assert x_adv.shape == x.shape
    assert length(x_adv - x, norm).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@threats
@pytest.mark.parametrize("restarts", [1, 2])
def test_nothing_of_the_model_changes(threat: ThreatModel, restarts: int) -> None:
    model = small().eval()
    model[3].train()  # Monte Carlo dropout, say: a mode the attack has no opinion on
    model[0].weight.requires_grad_(False)
    x, y = batch()
    torch.autograd.backward(F.cross_entropy(model(x), y))
    state = deepcopy(model.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]

    PGD(threat, steps=3, restarts=restarts)(model, x, y)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    after = [p.grad for p in model.parameters()]
    assert after[0] is None and all(
        a is b is None or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(grads, after, strict=True)
    )
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert [module.training for module in model.modules()] == modes


def test_a_model_in_training_is_as_before_when_attacked_while_evaluating() -> None:
    model = small().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    state = deepcopy(model.state_dict())
    with evaluating(model):
        PGD(LINF, steps=2)(model, *batch())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("start", "steps", "restarts"), [*itertools.product(STARTS, [0, 2], [1, 2])])
def test_the_result_has_no_graph_and_the_images_are_left_alone(start: Start, steps: int, restarts: int) -> None:
    x, y = batch()
    given = x.clone().requires_grad_()
    x_adv = PGD(LINF, steps, start=start, restarts=restarts)(small().eval(), given, y)
    assert not x_adv.requires_grad and x_adv.is_leaf
    x_adv.add_(1)  # and it is no view of them
    assert torch.equal(given, x) and given.grad is None and given.requires_grad


def test_it_attacks_where_gradients_are_off_too() -> None:
    model, (x, y) = small().eval(), batch()
    pgd = PGD(LINF, steps=3, start="natural")
    with torch.no_grad():
        inside = pgd(model, x, y)
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, pgd(model, x, y))


@threats
@pytest.mark.parametrize("start", STARTS)
def test_it_raises_the_loss_it_climbs(threat: ThreatModel, start: Start) -> None:
    model, (x, y) = small().eval(), batch(32)
    pgd = PGD(threat, steps=10, step_size=threat.radius / 4, start=start)
    with torch.no_grad():
        natural = cross_entropy_each(model(x), y)
        adversarial = cross_entropy_each(model(pgd(model, x, y)), y)
    assert (adversarial > natural).all()


def test_the_objective_of_trades_is_climbed_and_leaves_the_graph_of_its_target() -> None:
    model, (x, _) = small().eval(), batch(32)
    natural = model(x)  # with a graph, that the loss will still need
    pgd = PGD(LINF, start="gaussian")
    x_adv = pgd(model, x, natural, kl_each)
    with torch.no_grad():
        start = kl_each(model(replace(pgd, steps=0)(model, x, natural, kl_each)), natural)
        end = kl_each(model(x_adv), natural)
    assert (end > start).all() and end.mean() > 10 * start.mean()
    torch.autograd.backward(natural.sum())
    assert model[0].weight.grad is not None


@threats
@pytest.mark.parametrize("steps", [0, 3])
def test_from_the_image_itself_it_is_deterministic(threat: ThreatModel, steps: int) -> None:
    model, (x, y) = small().eval(), batch()
    pgd, before = PGD(threat, steps, start="natural"), torch.get_rng_state()
    first, second = pgd(model, x, y), pgd(model, x, y)
    assert torch.equal(first, second) and torch.equal(first, x) == (steps == 0)
    assert torch.equal(torch.get_rng_state(), before)


@threats
@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_other_starts_are_random_and_follow_the_seed(threat: ThreatModel, start: Start) -> None:
    model, (x, y) = small().eval(), batch()
    pgd = PGD(threat, steps=1, step_size=threat.radius / 4, start=start)
    torch.manual_seed(1)
    first, second = pgd(model, x, y), pgd(model, x, y)
    torch.manual_seed(1)
    assert torch.equal(pgd(model, x, y), first) and not torch.equal(second, first)


def test_the_gaussian_start_is_a_thousandth() -> None:
    x = torch.full((50, 3, 6, 6), 0.5)
    delta = PGD(LINF, steps=0, start="gaussian")(small(), x, torch.zeros(50)) - x
    assert delta.std().item() == pytest.approx(1e-3, rel=0.05) and abs(delta.mean().item()) < 1e-4


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_radius_of_zero_leaves_the_images(norm: Norm, start: Start) -> None:
    model, (x, y) = small().eval(), batch()
    x_adv = PGD(ThreatModel(0, norm), steps=3, start=start, restarts=2)(model, x, y)
    torch.testing.assert_close(x_adv, x, rtol=0, atol=1e-7)


def by_hand(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, steps: int, size: float) -> Tensor:
    """Attack one image after the other from itself, on the perturbation, with ``backward`` and the loss of the batch.

    This is how the papers' codes do it; the loss's scale drops out of both steps.
    """
    eps, done = threat.radius, []
    for image, label in zip(x, y, strict=True):
        delta = torch.zeros_like(image, requires_grad=True)
        for _ in range(steps):
            torch.autograd.backward(F.cross_entropy(model((image + delta)[None]), label[None]), inputs=delta)
            grad = delta.grad
            assert grad is not None
            with torch.no_grad():
                if threat.norm == "Linf":
                    moved = (delta + size * grad.sign()).clamp(-eps, eps)
                else:
                    moved = delta + size * grad / grad.square().sum().sqrt()
                    moved = moved * min(1.0, eps / moved.square().sum().sqrt().item())
                moved = (image + moved).clamp(0, 1) - image
            delta = moved.requires_grad_()
        done.append(image + delta.detach())
    return torch.stack(done)


@threats
def test_it_is_the_papers_loop(threat: ThreatModel) -> None:
    model, (x, y) = small().double().eval(), batch()
    x, size = x.double(), threat.radius / 4
    ours = PGD(threat, steps=7, step_size=size, start="natural")(model, x, y)
    torch.testing.assert_close(ours, by_hand(model, x, y, threat, 7, size), rtol=0, atol=1e-7)


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


def mid_grey(model: Linear, count: int = 200) -> tuple[Tensor, Tensor]:
    """Images that no radius up to 0.2 takes to the ends of the pixel range, labelled as the model sees them."""
    x = torch.empty(count, 3, 2, 2).uniform_(0.21, 0.79)
    return x, model(x).argmax(dim=1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.02), ("Linf", 0.1), ("L2", 0.05), ("L2", 0.2)])
def test_between_two_classes_it_finds_the_robust_accuracy(norm: Norm, eps: float, start: Start) -> None:
    model = Linear(classes=2)
    x, y = mid_grey(model)
    robust = margins(model, x, y, norm) > eps
    assert 10 < robust.sum() < 190  # or the test says nothing
    # fifty steps: in L2, what a random start has across the gradient only shrinks by a factor per step
    x_adv = PGD(ThreatModel(eps, norm), steps=50, step_size=eps / 4, start=start)(model, x, y)
    assert torch.equal(model(x_adv).argmax(dim=1) == y, robust)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_between_two_classes_it_finds_the_worst_image(norm: Norm) -> None:
    model = Linear(classes=2)
    x, y = mid_grey(model, count=20)
    away = (model.weight[1 - y] - model.weight[y]).detach()
    worst = away.sign() if norm == "Linf" else away / away.square().sum(dim=1, keepdim=True).sqrt()
    x_adv = PGD(ThreatModel(0.1, norm), steps=8, step_size=0.025, start="natural")(model, x, y)
    torch.testing.assert_close((x_adv - x).flatten(1), 0.1 * worst, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.15)])
def test_among_many_classes_it_finds_the_robust_accuracy(norm: Norm, eps: float) -> None:
    """Cross entropy may climb towards another class than the nearest one; the margin to each class in turn may not."""
    model = Linear(classes=5)
    x, y = mid_grey(model)
    robust = margins(model, x, y, norm) > eps
    assert 10 < robust.sum() < 190
    pgd = PGD(ThreatModel(eps, norm), steps=10, step_size=eps / 4, start="natural")

    def right(*objective: Objective) -> Tensor:
        return model(pgd(model, x, y, *objective)).argmax(dim=1) == y

    assert right(cross_entropy_each)[robust].all()
    by_class = [right(lambda z, y, k=k: z[:, k] - z.gather(1, y[:, None])[:, 0]) for k in range(5)]  # type: ignore[misc]
    assert torch.equal(torch.stack(by_class).all(dim=0), robust)


def test_a_saturated_model_gives_way_in_l2_as_well() -> None:
    """Certain logits have gradients around 1e-20, whose direction is as good as any other's."""
    model = Linear(classes=2)
    x, y = mid_grey(model)
    robust = margins(model, x, y, "L2") > 0.2
    model.weight.data *= 30
    model.bias.data *= 30
    pgd = PGD(ThreatModel(0.2, "L2"), steps=10, step_size=0.05, start="natural")
    nearly = (cross_entropy_each(model(x), y) > 0) | robust  # where float32 has any gradient
    assert nearly.sum() > 100
    assert torch.equal((model(pgd(model, x, y)).argmax(dim=1) == y)[nearly], robust[nearly])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_gradient_that_is_no_number_moves_nothing_and_fells_nothing(norm: Norm) -> None:
    """A root has an infinite slope at zero, where its value is as good as any. NaN would count as fallen."""

    def steep(x: Tensor) -> Tensor:
        score = (x.flatten(1) - x.flatten(1).detach()).square().sum(dim=1).sqrt()  # 0, and 0 / 0 behind it
        return torch.stack([1 - score, score], dim=1)

    x = torch.rand(6, 3, 4, 4)
    x_adv = PGD(ThreatModel("8/255", norm), steps=3)(steep, x, torch.zeros(6, dtype=torch.long))
    assert x_adv.isfinite().all() and torch.equal(steep(x_adv).argmax(dim=1), torch.zeros(6, dtype=torch.long))


def test_a_constant_model_in_half_precision_is_not_felled_in_l2() -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.stack([1 + 0 * x.flatten(1).sum(dim=1), 0 * x.flatten(1).sum(dim=1)], dim=1)

    x = torch.rand(4, 3, 4, 4).half()
    assert torch.equal(PGD(ThreatModel("8/255", "L2"), steps=3, start="natural")(constant, x, torch.zeros(4).long()), x)


def test_a_confident_model_gives_way_in_fp16_as_well() -> None:
    """Its gradients are below what fp16 can write, in float32 they point where they do for a doubting one."""
    model = Linear(classes=3)
    x, y = mid_grey(model)
    model.weight.data *= 25
    model.bias.data *= 25

    def half(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return nn.functional.linear((images - 0.5).flatten(1), model.weight, model.bias)

    pgd = PGD(ThreatModel("8/255"), steps=5, start="natural")
    wrong = 1 - model(x).double().softmax(dim=1).gather(1, y[:, None])[:, 0]
    certain = (wrong > 1e-30) & (wrong < 2**-25)  # float32 can write how unlikely the others are, and fp16 cannot
    assert certain.sum() > 20
    moved = [pgd(forward, x[certain], y[certain]) - x[certain] for forward in (model, half)]
    seen = Ascent(pgd.threat, lambda z, y, t: cross_entropy_each(z, y), 1)._look(
        Victim(half), x[certain], y[certain], y[certain]
    )
    assert (seen[0] != 0).float().mean() > 0.99  # of AutoAttack too
    assert (moved[1] != 0).float().mean() > 0.99
    assert (moved[0].sign() == moved[1].sign()).float().mean() > 0.95


def test_a_model_without_a_gradient_is_refused() -> None:
    model = Linear(classes=3)
    with pytest.raises(InputError, match="no gradient by the image"):
        PGD(ThreatModel("8/255"))(lambda x: model(x).detach(), *mid_grey(model))


def test_a_walk_to_the_boundary_without_a_gradient_is_refused() -> None:
    model = Linear(classes=3)
    with pytest.raises(InputError, match="no gradient by the image"):
        FABT(ThreatModel("8/255"))(Victim(lambda x: model(x).detach()), *mid_grey(model))


def test_of_all_restarts_each_image_keeps_its_worst() -> None:
    model, (x, y) = small().eval(), batch(40)
    with torch.no_grad():
        y = model(x).argmax(dim=1)  # right at first, so that a weak attack fools some of them sometimes
    pgd = PGD(ThreatModel("16/255"), steps=1, step_size=1 / 255)
    torch.manual_seed(7)
    runs = [pgd(model, x, y) for _ in range(5)]
    torch.manual_seed(7)
    kept = replace(pgd, restarts=5)(model, x, y)

    fools = []
    for i in range(len(x)):
        candidates = torch.stack([run[i] for run in runs])
        with torch.no_grad():
            logits = model(candidates)
        fooled = (logits.argmax(dim=1) != y[i]).tolist()
        losses = F.cross_entropy(logits, y[i].expand(5), reduction="none").tolist()
        worst = max(range(5), key=lambda run: (fooled[run], losses[run]))
        assert torch.equal(kept[i], candidates[worst]), (fooled, losses)
        fools.append(sum(fooled))
    assert {0, 5} <= set(fools) and len(set(fools)) > 3  # never, always and sometimes


class Scripted:
    """A model whose logits do not look at the image: one entry of the list per call."""

    def __init__(self, *logits: list[list[float]]) -> None:
        self.logits = iter([torch.tensor(entry) for entry in logits])

    def __call__(self, x: Tensor) -> Tensor:
        return next(self.logits)


def test_a_restart_that_fools_beats_one_of_higher_loss() -> None:
    """Three classes, label 0: being fooled by 0.4 against 0.35 costs less than being right by 0.34 to 0.33."""
    fooled, right = [0.35, 0.4, 0.25], [0.334, 0.333, 0.333]
    for order in itertools.permutations((fooled, right)):
        model = Scripted(*([torch.tensor(logits).log().tolist()] for logits in order))
        x = torch.full((1, 1, 1, 1), 0.5)
        torch.manual_seed(3)
        runs = [LINF.sample(x) for _ in range(2)]
        torch.manual_seed(3)
        kept = PGD(LINF, steps=0, restarts=2)(model, x, torch.zeros(1, dtype=torch.long))
        assert torch.equal(kept, runs[order.index(fooled)])


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_robustness(broken: float) -> None:
    model = Scripted([[1.0, 0.0]], [[broken, 0.0]], [[1.0, 0.0]])  # argmax says class 0, the label
    x = torch.full((1, 1, 1, 1), 0.5)
    torch.manual_seed(3)
    runs = [LINF.sample(x) for _ in range(3)]
    torch.manual_seed(3)
    kept = PGD(LINF, steps=0, restarts=3)(model, x, torch.zeros(1, dtype=torch.long))
    assert torch.equal(kept, runs[1])


def test_restarts_of_the_trades_objective_go_by_its_divergence() -> None:
    model, (x, _) = small().eval(), batch(16)
    natural = model(x).detach()
    pgd = PGD(ThreatModel("2/255"), steps=1, step_size=0.5 / 255)
    kept = replace(pgd, restarts=4)(model, x, natural, kl_each)
    assert kl_each(model(kept), natural).mean() > kl_each(model(pgd(model, x, natural, kl_each)), natural).mean()


def test_restarts_need_a_loss_per_image() -> None:
    model, (x, y) = small().eval(), batch()
    PGD(LINF, steps=1)(model, x, y, F.cross_entropy)
    with pytest.raises(InputError, match="one loss per image"):
        PGD(LINF, steps=1, restarts=2)(model, x, y, F.cross_entropy)


@pytest.mark.parametrize(
    "option",
    [{"steps": -1}, {"step_size": 0}, {"step_size": -0.1}, {"restarts": 0}, {"start": "random"}],
    ids=str,
)
def test_an_option_that_cannot_work_is_refused_by_name(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(InputError, match=f"^{name}={value!r}"):
        PGD(LINF, **option)


def test_attacks_are_read_by_name() -> None:
    ten = parse_attack("pgd-10", LINF)
    assert (ten.threat, ten.steps, ten.start, ten.restarts) == (LINF, 10, "uniform", 1)
    assert ten.step_size == pytest.approx(2 / 255)  # the papers' step at 8/255
    assert parse_attack("pgd-20", L2).step_size == pytest.approx(0.125)
    assert parse_attack("pgd-20", LINF, 1 / 255, "natural") == PGD(LINF, 20, 1 / 255, "natural")


def test_one_step_is_the_one_of_wong_et_al() -> None:
    """A uniform start and a step of 1.25 eps: 10/255 at 8/255."""
    fast = parse_attack("one-step", LINF)
    assert (fast.steps, fast.start) == (1, "uniform") and fast.step_size == pytest.approx(10 / 255)


def test_an_attack_of_radius_zero_can_be_read() -> None:
    model, (x, y) = small().eval(), batch()
    for name in ("pgd-2", "one-step"):
        assert torch.equal(parse_attack(name, ThreatModel(0))(model, x, y), x)


@pytest.mark.parametrize("name", ["pgd", "pgd-", "pgd--1", "pgd-2.5", "pgd-10 ", "fgsm", "autoattack", ""])
def test_an_unknown_attack_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"use pgd-K .* or one-step"):
        parse_attack(name, LINF)


@pytest.mark.parametrize("name", ["pgd-10", "one-step"])
def test_a_step_of_length_zero_is_not_taken_for_none_given(name: str) -> None:
    with pytest.raises(InputError, match="step_size=0"):
        parse_attack(name, LINF, step_size=0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("threat", [LINF, L2])
def test_the_loop_never_waits_for_the_gpu(threat: ThreatModel) -> None:
    model, (x, y) = small().eval().cuda(), batch()
    x, y = x.cuda(), y.cuda()
    attack = PGD(threat, steps=3)
    attack(model, x, y)  # what is done once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        attack(model, x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
