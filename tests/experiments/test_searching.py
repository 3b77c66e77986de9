"""The forms of a model that attacks search are the model, but for rounding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from autolora.errors import InputError
from autolora.experiments.searching import form, victim_of
from autolora.models import RobustModel, build_model


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def model() -> RobustModel:
    return build_model("packaged", classes=10).eval()


def test_in_full_precision_it_is_the_model(model: RobustModel) -> None:
    x = torch.rand(8, 3, 32, 32)
    torch.testing.assert_close(form(model)(x), model(x), rtol=1e-4, atol=1e-4)


def test_in_low_precision_logits_are_not_rounded_and_gradients_point_the_same_way(model: RobustModel) -> None:
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8)
    low = form(model, "bf16")
    assert low(x).dtype is torch.float32
    assert (low(x) != low(x).bfloat16()).float().mean() > 0.9, "the head's sums must not be rounded"
    gradients = []
    for forward in (model, low):
        moved = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(F.cross_entropy(forward(moved), y), moved)[0].flatten(1))
    assert F.cosine_similarity(gradients[0], gradients[1]).min() > 0.95
    assert not torch.equal(low(x), form(model)(x)), "then it would not be low precision"


def test_which_forms_a_victim_has(model: RobustModel) -> None:
    assert victim_of(model, "fp32").slope is None
    low = victim_of(model, "bf16")
    assert low.model is model and low.search is not None and low.slope is not None
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        victim_of(model, "fp16")


def test_surrounding_autocast_does_not_reach_the_head(model: RobustModel) -> None:
    x = torch.rand(2, 3, 32, 32)
    low = form(model, "bf16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = low(x)
    assert torch.equal(inside, low(x)) and inside.dtype is torch.float32
