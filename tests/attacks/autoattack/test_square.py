"""Square Attack against its paper read naively, closed forms of linear models, and the reference package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autolora.attacks.autoattack.square import Square
from autolora.attacks.autoattack.square_moves import Pyramids, Squares, pyramids
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


def source(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def small(classes: int = 4, channels: int = 3) -> nn.Sequential:
    """Any size of image, batch norm with statistics of its own, and a boundary that bends."""
    norm = nn.BatchNorm2d(6)
    nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    layers = (nn.Conv2d(channels, 6, 3, padding=1), norm, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(24, classes)).eval()


class Seen:
    """A model that remembers the images it was shown, and that nobody wanted a gradient."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model = model
        self.images: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.images.append(x.clone())
        return self.model(x)


def length(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "Linf" else flat.square().sum(dim=1).sqrt()


def lead(logits: Tensor, y: Tensor) -> Tensor:
    """Margin loss (N,), one image at a time."""
    pairs = zip(logits.tolist(), y.tolist(), strict=True)
    return torch.tensor([row[label] - max(row[:label] + row[label + 1 :]) for row, label in pairs])


@pytest.mark.parametrize("queries", [10_000, 5000, 1000])
def test_the_share_of_the_image_follows_the_published_table(queries: int) -> None:
    """Of 10,000 queries: p until 10, p / 2 until 50, p / 4 until 200 and so on."""
    table = ((10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256))
    attack = Square(ThreatModel("8/255"), queries=queries, p_init=0.3)
    for query in range(0, queries, 1 if queries == 1000 else 5):
        divisor = next((divisor for until, divisor in table if query * (10_000 // queries) <= until), 512)
        assert attack.share(query) == 0.3 / divisor


@pytest.mark.parametrize("side", range(1, 10))
def test_pyramids_are_those_of_the_paper(side: int) -> None:
    """Equations 2 and 3, with indices from 1: two blocks side by side, of unit length together."""

    def block(h_1: int, h_2: int) -> list[list[float]]:
        n = h_1 // 2
        return [
            [
                sum(1 / (n + 1 - k) ** 2 for k in range(n - max(abs(r - h_1 // 2 - 1), abs(s - h_2 // 2 - 1)) + 1))
                for s in range(1, h_2 + 1)
            ]
            for r in range(1, h_1 + 1)
        ]

    left, right = block(side, side // 2), block(side, side - side // 2)
    expected = torch.tensor([a + [-value for value in b] for a, b in zip(left, right, strict=True)])
    torch.testing.assert_close(pyramids(side), expected / expected.square().sum().sqrt())


def scripted(count: int, numbers: dict[tuple[int, ...], list[Tensor]]) -> Callable[..., Tensor]:
    """Uniform numbers for a move, by shape, in the order given."""

    def draw(*shape: int) -> Tensor:
        value = numbers[shape].pop(0)
        assert value.shape == (count, *shape)
        return value

    return draw


def test_algorithm_3() -> None:
    """One move in L2, channel by channel, for windows that overlap and windows that do not."""
    count, channels, height, width, eps, side = 12, 3, 9, 7, 0.5, 3
    x = torch.rand(count, channels, height, width) * 0.2 + 0.4
    best = x + 0.1 * torch.randn_like(x) / (channels * height * width) ** 0.5
    best[0] = x[0]  # nothing to move yet
    corners, signs, turned = torch.rand(2, count, 2), torch.rand(count, channels, 1, 1), torch.rand(count, 1, 1, 1)
    numbers = {(2,): list(corners.clone()), (channels, 1, 1): [signs], (1, 1, 1): [turned]}
    moved = Pyramids(eps).propose(x, best, share=9 / 63, draw=scripted(count, numbers))

    apart = 0
    for row in range(count):
        nu = (best - x)[row].double()
        (r_1, s_1), (r_2, s_2) = (
            (int(u * (height - side + 1)), int(v * (width - side + 1))) for u, v in corners[:, row].tolist()
        )
        apart += abs(r_1 - r_2) >= side or abs(s_1 - s_2) >= side
        both = torch.zeros(height, width, dtype=torch.bool)
        both[r_1 : r_1 + side, s_1 : s_1 + side] = both[r_2 : r_2 + side, s_2 : s_2 + side] = True
        unused = eps**2 - float(nu.square().sum())
        eta = pyramids(side).double()
        if turned[row] < 0.5:
            eta = eta.T
        expected = nu.clone()
        for channel in range(channels):
            here = nu[channel, r_1 : r_1 + side, s_1 : s_1 + side]
            rho = 1 if signs[row, channel] >= 0.5 else -1
            temporary = rho * eta + (here / here.norm() if here.norm() > 0 else 0)
            available = (float(nu[channel][both].square().sum()) + unused / channels) ** 0.5
            expected[channel, r_2 : r_2 + side, s_2 : s_2 + side] = 0
            expected[channel, r_1 : r_1 + side, s_1 : s_1 + side] = temporary / temporary.norm() * available
        torch.testing.assert_close((moved - x)[row].double(), expected, atol=1e-6, rtol=1e-5)
        assert float(expected.norm()) == pytest.approx(eps)  # as the paper says
    assert 0 < apart < count


def test_a_length_that_is_rounded_up_leaves_nothing_to_take_a_root_of() -> None:
    x = torch.full((1, 1, 12, 12), 0.5)
    best = x.clone()
    best[0, 0, 0, 0] += 0.25 * (1 + 1e-6)
    moved = Pyramids(0.25).propose(x, best, 0.01, lambda *shape: torch.full((1, *shape), 0.9))
    assert torch.equal(moved, best)


def test_algorithm_2() -> None:
    """One move in Linf: a square, each channel of which steps by 2 eps and goes back into the ball."""
    count, channels, height, width, eps, side = 12, 3, 9, 7, 0.1, 4
    x = torch.rand(count, channels, height, width)
    best = x + eps * torch.randn_like(x).sign()
    corners, signs = torch.rand(count, 2), torch.rand(count, channels, 1, 1)
    draw = scripted(count, {(2,): [corners], (channels, 1, 1): [signs]})
    moved = Squares(eps).propose(x, best, share=16 / 63, draw=draw)
    for row in range(count):
        r, s = int(corners[row, 0] * (height - side + 1)), int(corners[row, 1] * (width - side + 1))
        expected = best[row].clone()
        for channel in range(channels):
            expected[channel, r : r + side, s : s + side] += 2 * eps if signs[row, channel] >= 0.5 else -2 * eps
        torch.testing.assert_close(moved[row], expected.clamp(x[row] - eps, x[row] + eps))


@pytest.mark.parametrize("moves", [Squares(0.1), Pyramids(0.1)], ids=["Linf", "L2"])
@pytest.mark.parametrize("size", [(9, 7), (7, 9), (2, 2), (1, 4)])
def test_squares_reach_every_pixel(moves: Squares | Pyramids, size: tuple[int, int]) -> None:
    x = torch.full((300, 1, *size), 0.5)
    tried = moves.propose(x, x, 0.1, lambda *shape: torch.rand(300, *shape))
    assert ((tried != x).sum(dim=0) > 0).all()


@pytest.mark.parametrize(
    ("share", "linf", "l2"), [(0.8, 8, 9), (0.35, 6, 7), (0.2, 4, 5), (0.1, 3, 3), (0.01, 1, 3), (1e-6, 1, 3)]
)
def test_the_side_of_a_square(share: float, linf: int, l2: int) -> None:
    """The nearest whole number to the root of the area, in L2 the next odd one, at least 3; never above 10 x 9."""
    x = torch.full((1, 1, 10, 9), 0.5)
    for moves, side in ((Squares(0.1), linf), (Pyramids(0.1), l2)):
        tried = moves.propose(x, x, share, lambda *shape: torch.zeros(1, *shape))
        rows, columns = (tried != x)[0, 0].any(dim=1).sum(), (tried != x)[0, 0].any(dim=0).sum()
        assert int(rows) == int(columns) == side


def test_stripes_come_first() -> None:
    x = torch.full((50, 3, 6, 5), 0.5)
    delta = Squares(0.1).start(x, lambda *shape: torch.rand(50, *shape)) - x
    torch.testing.assert_close(delta.abs(), torch.full_like(x, 0.1))
    assert torch.equal(delta, delta[:, :, :1].expand_as(delta))  # the same in every row
    signs = delta[:, :, 0].sign().flatten(1)
    assert (signs.mean(dim=0).abs() < 0.6).all() and (signs.std(dim=1) > 0).all()  # of its own everywhere


def test_a_grid_of_pyramids_comes_first() -> None:
    """5 x 5 tiles of 6 x 6 in 32 x 32, one pixel in, of length eps in all, each turned or not and up or down."""
    x, eps = torch.full((20, 3, 32, 32), 0.5), 0.5
    delta = Pyramids(eps).start(x, lambda *shape: torch.rand(20, *shape)) - x
    torch.testing.assert_close(length(delta, "L2").float(), torch.full((20,), eps))
    assert (delta[:, :, [0, 31]] == 0).all() and (delta[:, :, :, [0, 31]] == 0).all()
    pair = pyramids(6) * eps / 75**0.5
    kinds: Counter[int] = Counter()
    for image in delta:
        ways = set()
        for top in range(1, 31, 6):
            for left in range(1, 31, 6):
                tile = image[:, top : top + 6, left : left + 6]
                turned = torch.allclose(tile[0].abs(), pair.T.abs(), atol=1e-6)
                ways.add(turned)
                expected = pair.T if turned else pair
                for channel in tile:  # the channels are turned together, and signed each for itself
                    up = torch.allclose(channel, expected, atol=1e-6)
                    assert up or torch.allclose(channel, -expected, atol=1e-6)
                    kinds[2 * turned + up] += 1
        assert len(ways) == 2  # each tile for itself
    assert min(kinds[kind] for kind in range(4)) > 200  # of 1,500


@given(
    st.sampled_from(("Linf", "L2")),
    st.sampled_from((0.0, 1e-3, 8 / 255, 0.2, 1.0)),
    st.sampled_from(((1, 1, 1), (3, 1, 1), (1, 2, 5), (3, 7, 4), (3, 11, 12))),
    st.integers(2, 5),
    st.integers(1, 2),
)
@settings(max_examples=30, deadline=None)
def test_all_that_is_tried_lies_in_the_set(
    norm: Norm, eps: float, shape: tuple[int, int, int], classes: int, restarts: int
) -> None:
    model = small(classes, channels=shape[0])
    x = (torch.rand(5, *shape) * 1.4 - 0.2).clamp(0, 1)
    y = torch.arange(5) % classes
    seen = Seen(model)
    x_adv, fallen = Square(ThreatModel(eps, norm), queries=12, restarts=restarts)(Victim(seen), x, y, source())
    assert x_adv.shape == x.shape and fallen.shape == y.shape and not x_adv.requires_grad
    nearest = [torch.stack([length(x - image, norm) for image in images]).amin(dim=1) for images in seen.images]
    assert torch.cat(nearest).max() <= eps + 1e-6
    assert length(x_adv - x, norm).max() <= eps + 1e-6
    assert all(images.min() >= 0 and images.max() <= 1 for images in (*seen.images, x_adv))
    with torch.no_grad():
        assert torch.equal(model(x_adv).argmax(dim=1) != y, fallen)
        at_first = model(x).argmax(dim=1) != y
    assert fallen[at_first].all() and torch.equal(x_adv[at_first], x[at_first])


@norms
@pytest.mark.parametrize("restarts", [1, 2])
def test_the_kept_image_is_the_best_that_was_tried(norm: Norm, restarts: int) -> None:
    model = small()
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    seen = Seen(model)
    attack = Square(ThreatModel(0.005 if norm == "Linf" else 0.05, norm), queries=40, restarts=restarts)
    x_adv, fallen = attack(Victim(seen), x, y, source())
    assert not fallen.any()
    assert len(seen.images) == 1 + 39 * restarts
    with torch.no_grad():
        tried = torch.stack([lead(model(images), y) for images in seen.images])
        torch.testing.assert_close(lead(model(x_adv), y), tried.amin(dim=0))
    assert (tried.amin(dim=0) < tried[0]).all()


@norms
def test_what_is_tried_next_is_the_best_so_far_with_a_change(norm: Norm) -> None:
    """The loss of what is kept never rises: from one query to the next, only a window or two differ from the best."""
    model = small()
    x = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    seen = Seen(model)
    attack = Square(ThreatModel(0.005 if norm == "Linf" else 0.05, norm), queries=60, p_init=0.1)
    attack(Victim(seen), x, y, source())
    with torch.no_grad():
        leads = torch.cat([lead(model(images), y) for images in seen.images])
    assert leads[1:].argmin() > 0  # the start was improved on
    for query in range(2, 60):
        best = seen.images[1:query][int(leads[1:query].argmin())]
        changed = ((seen.images[query] - best).abs() > 1e-7).any(dim=1).sum()
        assert changed <= {"Linf": 16, "L2": 2 * 25}[norm]


def test_the_schedule_begins_with_the_first_square() -> None:
    """Of 20 queries each counts for 500 of 10,000: one square of all pixels, then one of an eighth of them."""
    x = torch.full((30, 1, 12, 12), 0.5)
    seen = Seen(lambda images: torch.stack([images.mean(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1))
    Square(ThreatModel(0.1), queries=20, p_init=1.0)(Victim(seen), x, torch.zeros(30, dtype=torch.long), source())
    assert (seen.images[2].flatten(1).std(dim=1) < 1e-6).all()
    assert (seen.images[3].flatten(1).std(dim=1) > 1e-6).any()


def test_an_image_costs_no_more_than_its_queries() -> None:
    """Told by their brightness: one is wrong at once, one falls on the way, two stand."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([x.mean(dim=(1, 2, 3)), torch.full((len(x),), 0.45)], dim=1)

    x = torch.stack([torch.full((1, 4, 4), value) for value in (0.46, 0.3, 0.6, 0.9)])
    seen = Seen(model)
    _, fallen = Square(ThreatModel("0.05"), queries=50)(Victim(seen), x, torch.zeros(4, dtype=torch.long), source())
    assert fallen.tolist() == [True, True, False, False]
    shown = [
        (int((x.mean(dim=(1, 2, 3)) - image.mean()).abs().argmin()), image) for each in seen.images for image in each
    ]
    assert Counter(row for row, _ in shown) | Counter({0: 20}) == {0: 20, 1: 1, 2: 50, 3: 50}
    falls = [float(image.mean()) < 0.45 for row, image in shown if row == 0]
    assert falls.index(True) == len(falls) - 1  # and was shown no more


def linear(classes: int) -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear model and images far from the walls of the box, labelled as the model sees them."""
    layer = nn.Linear(48, classes).requires_grad_(False)
    x = torch.rand(40, 3, 4, 4) * 0.2 + 0.4
    layer.bias.copy_(-(layer.weight @ x.flatten(1).mean(dim=0)))
    return layer, x, layer(x.flatten(1)).argmax(dim=1)


@norms
@pytest.mark.parametrize("classes", [2, 5])
def test_a_linear_model_falls_where_it_is_near_and_nowhere_else(norm: Norm, classes: int) -> None:
    layer, x, y = linear(classes)
    logits, rows = layer(x.flatten(1)), torch.arange(len(x))
    difference = layer.weight[y][:, None] - layer.weight[None]
    dual = difference.abs().sum(dim=2) if norm == "Linf" else difference.square().sum(dim=2).sqrt()
    leads = logits[rows, y][:, None] - logits
    leads[rows, y] = torch.inf
    distance = (leads / dual).amin(dim=1)
    eps = float(distance.quantile(0.7))
    x_adv, fallen = Square(ThreatModel(eps, norm), queries=400)(
        Victim(lambda images: layer(images.flatten(1))), x, y, source()
    )
    assert not fallen[distance > eps * (1 + 1e-5)].any()
    assert fallen[distance < eps * (0.6 if norm == "Linf" else 0.3)].all()
    assert fallen.sum() > 0.3 * len(x)
    assert torch.equal(layer(x_adv.flatten(1)).argmax(dim=1) != y, fallen)


@norms
def test_squares_of_an_image_do_not_depend_on_the_others(norm: Norm) -> None:
    model = small()
    x = torch.rand(6, 3, 6, 6)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    attack = Square(ThreatModel(0.05 if norm == "Linf" else 0.3, norm), queries=40)
    x_adv, fallen = attack(Victim(model), x, y, source())
    # the others are wrong from the start, and leave at once
    for row in range(6):
        other = (y + 1) % 4
        other[row] = y[row]
        alone, fell = attack(Victim(model), x, other, source())
        assert fell[row] == fallen[row]
        torch.testing.assert_close(alone[row], x_adv[row], atol=1e-5, rtol=0)
    moved = (x_adv - x).abs() > 0
    assert not torch.equal(moved[0], moved[1]) or norm == "Linf"


@norms
def test_the_same_generator_gives_the_same_images(norm: Norm) -> None:
    model = small()
    x, y = torch.rand(6, 3, 6, 6), torch.arange(6) % 4
    attack, state = Square(ThreatModel(0.02, norm), queries=15, restarts=2), torch.get_rng_state()
    first, again, other = (attack(Victim(model), x, y, source(number))[0] for number in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    starts = Seen(model)
    with torch.no_grad():
        attack(Victim(starts), x, model(x).argmax(dim=1), source())
    assert not torch.equal(starts.images[1][-1], starts.images[15][-1])  # each restart begins anew


def test_a_search_of_its_own_does_not_count() -> None:
    layer, x, y = linear(3)
    seen = Seen(lambda images: layer(images.flatten(1)))

    def search(images: Tensor) -> Tensor:
        return layer(images.flatten(1)).bfloat16()

    attack = Square(ThreatModel(0.05), queries=60)
    x_adv, fallen = attack(Victim(seen, search), x, y, source())
    assert fallen.any() and x_adv.dtype == torch.float32
    assert (layer(x_adv.flatten(1)).argmax(dim=1) != y)[fallen].all()
    label = int(y[0])
    steady = Victim(lambda images: F.one_hot(torch.full((len(images),), label), 3).float(), search)
    assert not attack(steady, x[y == label], y[y == label], source())[1].any()
    broken = Victim(steady.model, lambda images: torch.full((len(images), 3), torch.nan))
    x_adv, fallen = attack(broken, x[y == label], y[y == label], source())
    assert not fallen.any() and x_adv.isfinite().all()


def test_logits_that_are_no_numbers_fall() -> None:
    def model(x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.where(mean > 0.9, torch.nan, 0.0), torch.where(mean < 0.5, torch.inf, 0.0)], 1)

    x, y = torch.tensor([0.95, 0.52, 0.7, 0.88]).view(4, 1, 1, 1), torch.zeros(4, dtype=torch.long)
    x_adv, fallen = Square(ThreatModel("0.05"), queries=50)(Victim(model), x, y, source())
    assert fallen.tolist() == [True, True, False, True]
    assert x_adv.isfinite().all() and wrong(model(x_adv), y).tolist() == fallen.tolist()


def test_what_a_search_has_no_numbers_for_is_not_kept() -> None:
    net, x = small().requires_grad_(False), torch.rand(4, 3, 5, 5)
    y, corner = net(x).argmax(dim=1), x[:, 0, 0, 0]

    def search(images: Tensor) -> Tensor:
        return torch.where(images[:, :1, 0, 0] > corner[:, None], torch.nan, net(images))

    x_adv, fallen = Square(ThreatModel(0.005), queries=40)(Victim(net, search), x, y, source())
    assert not fallen.any() and search(x_adv).isfinite().all()
    assert (lead(net(x_adv), y) < lead(net(x), y)).all()


@norms
def test_nothing_of_the_model_changes(norm: Norm) -> None:
    model = small()
    model[2].train()
    x, y = torch.rand(6, 3, 6, 6), torch.arange(6) % 4
    torch.autograd.backward(F.cross_entropy(model(x), y))
    state = deepcopy(model.state_dict())
    grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    modes = [module.training for module in model.modules()]
    natural = x.clone()
    Square(ThreatModel(0.01, norm), queries=5)(Victim(model), x, y)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for before, parameter in zip(grads, model.parameters(), strict=True):
        assert parameter.requires_grad and torch.equal(before, parameter.grad)  # type: ignore[arg-type]
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(x, natural)


def test_the_defaults_are_those_of_the_standard_version() -> None:
    attack = Square(ThreatModel("8/255"))
    assert (attack.queries, attack.restarts, attack.p_init) == (5000, 1, 0.8)


@pytest.mark.parametrize("options", [{"queries": 0}, {"restarts": 0}, {"p_init": 0.0}, {"p_init": 1.5}], ids=str)
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        replace(Square(ThreatModel("8/255")), **options)


@norms
def test_the_reference_package_finds_no_more(norm: Norm) -> None:
    """Both are random: of 60 images, ours may leave a few more standing by chance, not many."""
    reference = pytest.importorskip("pyautoattack.square")
    model = small(classes=5).requires_grad_(False)
    x = torch.rand(60, 3, 10, 10)
    model[5].bias -= model(x).mean(dim=0)  # so that the boundaries are near
    y = model(x).argmax(dim=1)
    eps = 0.02 if norm == "Linf" else 0.25
    theirs = reference.SquareAttack(model, norm=norm, n_queries=100, eps=eps, device="cpu").perturb(x, y)
    they = (model(theirs).argmax(dim=1) != y).sum()
    we = Square(ThreatModel(eps, norm), queries=100)(Victim(model), x, y, source())[1].sum()
    assert 10 < they < 50
    assert we >= they - 5
