"""The packaged backbone is what its card says, on real photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import timm
import torch

from autolora.attacks import PGD
from autolora.data import load_splits, loader
from autolora.evaluation import verdicts
from autolora.models.backbones import PACKAGED_ARCHITECTURE, TimmModel, packaged_weights
from autolora.models.weights import load_strictly, read_state
from autolora.threat import ThreatModel

SAMPLE = 1000


@pytest.fixture(scope="module")
def record() -> dict[str, dict[str, dict[str, float]]]:
    return json.loads(packaged_weights().with_suffix(".json").read_text())


def test_it_is_small_enough_for_a_package() -> None:
    assert packaged_weights().stat().st_size < 6_000_000


def test_the_card_states_the_scores_and_the_command(record: dict[str, dict[str, dict[str, float]]]) -> None:
    card = packaged_weights().with_name("README.md").read_text()
    for attack in ("natural", "pgd-10"):
        assert f"{100 * record['scores'][attack]['accuracy']:.1f} %" in card
    assert "autolora pretrain" in card


@pytest.mark.slow
def test_the_scores_hold_on_real_photos(
    shared: Callable[[str], Path], record: dict[str, dict[str, dict[str, float]]], tmp_path: Path
) -> None:
    model: TimmModel = timm.create_model(PACKAGED_ARCHITECTURE)
    load_strictly(model, read_state(packaged_weights()), "the packaged weights")
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    model.eval().to(memory_format=torch.channels_last)
    with ZipFile(shared("data/cifar10.zip")) as archive:
        images = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        tested = [name for name in images if "/test/" in name]
        few = [name for name in images if "/train/" in name and name.endswith("00.jpg")]  # a data set has some
        archive.extractall(tmp_path, [*few, *tested[:: len(tested) // SAMPLE]])
    sample = load_splits(tmp_path / "cifar10", image_size=32, progress=False).test
    assert len(sample) == SAMPLE
    attack = PGD(ThreatModel("8/255"), start="natural")
    for name, how in (("natural", None), ("pgd-10", attack)):
        found = verdicts(lambda x: model((x - mean) / std), loader(sample, 250), how).score
        expected = record["scores"][name]["accuracy"]
        # five standard errors of a sample of this size
        assert found.accuracy == pytest.approx(expected, abs=5 * (expected * (1 - expected) / found.total) ** 0.5)
