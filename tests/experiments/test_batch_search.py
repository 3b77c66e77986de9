"""``--batch-size auto``: the largest that fits, found once; and what autograd keeps, counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autolora import finetune
from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.experiments import batch_search
from autolora.experiments.batch_search import batch_that_fits, kept_bytes, largest_batch
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.ingredients import default_batch_size, prepare
from autolora.experiments.run import run
from autolora.models import RobustModel
from autolora.training.precision import autocast_for


@pytest.mark.parametrize(
    ("room", "most", "expected"), [(1000, 64, 64), (63, 1024, 32), (16, 64, 16), (9, 64, 8), (2, 64, 2), (100, 8, 8)]
)
def test_the_largest_power_of_two_that_fits(room: int, most: int, expected: int) -> None:
    tried: list[int] = []
    assert largest_batch(lambda size: tried.append(size) or size <= room, most) == expected  # type: ignore[func-returns-value]
    assert max(tried) <= most and len(tried) == len(set(tried))


def test_what_autograd_keeps_is_counted_once() -> None:
    """A product keeps both factors, and a second product with the same factor keeps one more."""
    a, b, c = (torch.rand(10, 10, requires_grad=True) for _ in range(3))
    assert kept_bytes(lambda: a @ b) == 2 * 400
    assert kept_bytes(lambda: (a @ b) + (a @ c)) == 3 * 400
    assert kept_bytes(lambda: a.detach() @ b.detach()) == 0


def config(photos: Path, out: Path, **more: object) -> RunConfig:
    options: dict[str, object] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "method": "ft"}
    return RunConfig(**{**options, "data": str(photos), "out": str(out), **more})  # type: ignore[arg-type]


def test_memory_decides_and_nothing_else_changes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen images take twice what eight take; parts of a batch are as large as they are."""
    monkeypatch.setattr(batch_search, "default_batch_size", lambda images, most: 1024)
    parts = prepare(config(photos, tmp_path / "a"), progress=False)
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    parts.method.begin_training(parts.model)
    x, y = torch.rand(2, 3, 12, 12), torch.zeros(2, dtype=torch.long)
    with torch.random.fork_rng():
        model = prepare(config(photos, tmp_path / "a", precision=parts.precision), progress=False).model.train()
        with autocast_for(parts.precision, torch.device("cpu"))():
            each = kept_bytes(lambda: torch.nn.functional.cross_entropy(model(x), y)) / 2

    class Memory:
        available = 20 * each / batch_search.SHARE

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    state = torch.get_rng_state()
    assert batch_that_fits(parts) == 16
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(dict(parts.model.state_dict()), before, rtol=0, atol=0)
    accumulating = prepare(config(photos, tmp_path / "b", accumulate=4), progress=False)
    assert batch_that_fits(accumulating) == 64


def test_what_was_found_is_kept_with_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    finetune(photos, method="ft", model="resnet20_cifar", weights="none", image_size=12, epochs=1, batch_size="auto",
             attack="pgd-1", out=str(out), progress=False)  # fmt: skip
    assert read_yaml(out / "config.yaml").batch_size == 16  # on few images, steps decide

    def never(parts: object) -> int:
        raise AssertionError("searched again")

    monkeypatch.setattr("autolora.experiments.jointly.batch_that_fits", never)
    (out / "result.json").unlink()
    asked = replace(read_yaml(out / "config.yaml"), batch_size="auto")
    assert run(asked, resume=True, progress=False).content["config"]["batch_size"] == 16


@pytest.mark.parametrize(("images", "expected"), [(1, 16), (29, 16), (1000, 16), (2048, 64), (4095, 64), (50_000, 128)])
def test_the_default_leaves_32_steps_or_is_the_papers(images: int, expected: int) -> None:
    assert default_batch_size(images) == expected


def test_a_batch_has_to_have_its_parts() -> None:
    with pytest.raises(InputError, match="a batch of 8 images has not so many parts"):
        RunConfig(data="x", batch_size=8, accumulate=5)
    with pytest.raises(InputError, match="accumulate=0 is too small"):
        RunConfig(data="x", accumulate=0)
    with pytest.raises(InputError, match="batch-size='large'"):
        RunConfig(data="x", batch_size="large")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_tried(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_search, "default_batch_size", lambda images, most: 64)
    parts = prepare(config(photos, tmp_path / "a", device="cuda"), progress=False)
    assert isinstance(parts.method.pgd, PGD) and isinstance(parts.model, RobustModel)
    assert batch_that_fits(parts) == 64
