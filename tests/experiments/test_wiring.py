"""Every option of a run reaches what it is about: none is read, checked, and then forgotten on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import RandomSampler

from autolora.attacks import PGD
from autolora.attacks.autoattack.ensemble import NATURAL
from autolora.cli import run as command
from autolora.data import load_splits
from autolora.experiments import run as run_module
from autolora.experiments.config import config_from
from autolora.experiments.run import run
from autolora.methods.vanilla_rft import VanillaRFT
from autolora.threat import ThreatModel
from autolora.training import Optimization

UNLIKE_THE_DEFAULTS = {
    **{"method": "vanilla-rft", "method_options": {"beta": 2.5, "start": "natural"}},
    **{"eps": "128/255", "norm": "L2", "attack": "pgd-3", "step_size": 0.07},
    **{"epochs": 3, "batch_size": 8, "accumulate": 2, "lr": 0.03, "momentum": 0.5, "weight_decay": 3e-3},
    **{"reset_momentum": True, "schedule": "cosine", "schedule_options": {"warmup": 1}},
    **{"precision": "bf16", "device": "cpu", "checkpoint_minutes": 7.0, "compile": "attack", "seed": 5},
}


class Caught(Exception):
    """What ``fit`` was called with."""


def test_every_option_reaches_the_training(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: dict[str, Any] = {}

    def fit(*arguments: Any, **options: Any) -> None:
        caught.update(zip(("model", "method", "train", "val", "schedule"), arguments, strict=False), **options)
        raise Caught

    monkeypatch.setattr(run_module, "fit", fit)
    small = {"data": photos, "model": "resnet20_cifar", "weights": "none", "image_size": 12, "track": "none"}
    with pytest.raises(Caught):
        run(config_from({**small, **UNLIKE_THE_DEFAULTS, "out": str(tmp_path / "run")}), progress=False)

    threat = ThreatModel("128/255", "L2")
    assert caught["method"] == VanillaRFT(PGD(threat, 3, 0.07, "natural"), beta=2.5, start="natural")
    # the specification's: PGD-10 with steps of eps / 4, without a random start, whatever training attacks with
    assert caught["val_attack"] == PGD(threat, 10, threat.radius / 4, "natural")
    assert caught["optimization"] == Optimization(momentum=0.5, weight_decay=3e-3, reset_momentum=True)
    assert [caught["schedule"].rate(epoch) for epoch in (0, 1)] == pytest.approx([0.015, 0.03])
    assert (caught["epochs"], caught["accumulate"], caught["compile"]) == (3, 2, "attack")
    assert caught["checkpoint_minutes"] == 7 and caught["sync_norms"] and not caught["shard"]
    with caught["autocast"]():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16

    train, clean = caught["train"], caught["clean"]
    assert isinstance(train.sampler, RandomSampler) and train.drop_last and train.batch_size == 8
    assert train.dataset.augmenting and not clean.dataset.augmenting and not caught["val"].dataset.augmenting
    assert sorted(clean.dataset.names) == sorted(train.dataset.names)


def test_momentum_and_weight_decay_are_the_optimizers() -> None:
    """A step from rest, and one after it, by hand: v = m v + g + w p, p = p - lr v."""
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = Optimization(momentum=0.5, weight_decay=0.25).optimizer([weight], lr=0.1)
    expected, velocity = 2.0, 0.0
    for _ in range(3):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        velocity = 0.5 * velocity + 1.0 + 0.25 * expected
        expected -= 0.1 * velocity
        assert float(weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_run_under_l2_is_trained_and_judged_under_l2(photos: Path, tmp_path: Path) -> None:
    """Adversarial images of its evaluation lie in the L2 ball, and beyond the Linf ball of that radius in no pixel."""
    out, eps = tmp_path / "run", 3.0
    words = f"fit {photos} --method ft --model resnet20_cifar --weights none --image-size 12 --batch-size 10 --epochs 6"
    words += f" --lr 0.05 --norm L2 --eps {eps} --attack pgd-2 --device cpu --precision fp32 --track none --out {out}"
    assert command([*words.split(), "--quiet"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["threat_model"]["norm"] == "L2" and result["threat_model"]["radius"] == pytest.approx(eps)

    assert command(["evaluate", str(out), "--attack", "pgd-10", "--quiet", "--out", str(tmp_path / "e")]) == 0
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert found["scores"]["pgd-10"]["correct"] == result["scores"]["pgd-10"]["correct"] < 18
    test = load_splits(str(photos), image_size=12).test
    (file,) = (tmp_path / "e").rglob("*.safetensors")
    shard = load_file(file)
    natural = torch.stack([test[index][0] for index in range(len(test))])
    moved = _nearest(shard["fallen"], natural)
    assert len(moved) == int((shard["by"] > NATURAL).sum()) > 0
    lengths = moved.flatten(1).norm(dim=1)
    assert lengths.max() <= eps * (1 + 1e-5) and lengths.min() > 0.5 * eps
    assert moved.flatten(1).abs().amax(dim=1).max() < eps


def _nearest(adversarial: torch.Tensor, natural: torch.Tensor) -> torch.Tensor:
    """Return how far each adversarial image lies from the natural image that it is nearest to."""
    distances = torch.cdist(adversarial.flatten(1), natural.flatten(1))
    return adversarial - natural[distances.argmin(dim=1)]
