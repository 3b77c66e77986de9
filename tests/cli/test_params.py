"""``autolora params``: what it prints for people and for machines, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autolora.cli import run
from autolora.models import build_model
from autolora.models.bundle import load_bundle, save_bundle

SMALL = "resnet20_cifar"

Printed = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run ``autolora params`` and return what it prints."""

    def call(*argv: str) -> str:
        assert run(["params", *argv]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run folder that holds a model of three classes at 24x24."""
    with torch.random.fork_rng():
        model = build_model(SMALL, classes=3, weights="none", image_size=24)
    save_bundle(model, tmp_path / "run" / "model", ["ant", "bee", "wasp"], {})
    return tmp_path / "run"


def test_json(printed: Printed) -> None:
    printed_object: dict[str, Any] = json.loads(printed("resnet18", "--rank", "8", "--json"))
    ratios = {key: round(printed_object.pop(key), 3) for key in list(printed_object) if key.endswith("_percent")}
    assert printed_object == {
        "model": "resnet18",
        "rank": 8,
        "style": "loralib",
        "targets": "blocks",
        "num_classes": 10,
        "image_size": 224,
        "lora_params": 531_456,
        "fe_params": 11_176_512,
        "total_params": 11_181_642,
        "bn_params": 7_808,
    }
    # 531,456 / (11,176,512 + 531,456) = 4.539 %
    assert ratios == {"lora_over_fe_percent": 4.755, "lora_over_total_percent": 4.539, "table4_percent": 4.869}


def test_json_of_several_ranks_is_a_list(printed: Printed) -> None:
    rows = json.loads(printed("resnet18_cifar", "--style", "peft", "--rank", "2", "4", "8", "16", "--json"))
    assert [row["rank"] for row in rows] == [2, 4, 8, 16]
    assert [row["lora_params"] for row in rows] == [71_606, 143_212, 286_424, 572_848]
    assert [round(row["lora_over_total_percent"], 3) for row in rows] == [0.637, 1.266, 2.500, 4.879]
    assert {(row["style"], row["targets"], row["image_size"]) for row in rows} == {("peft", "all", 32)}


def test_table(printed: Printed) -> None:
    lines = printed("resnet18", "--rank", "2", "4", "8", "16").splitlines()
    assert lines[0] == "resnet18 at 224x224 with 10 classes, loralib pairs, targets blocks"
    assert "11,176,512" in lines[1] and "11,181,642" in lines[1]
    table = lines[3:8]
    assert " ".join(table[0].split()) == "rank LoRA LoRA / FE LoRA / (FE + LoRA) table 4"
    assert [row.split()[0] for row in table[1:]] == ["2", "4", "8", "16"]
    assert [row.split()[1] for row in table[1:]] == ["132,864", "265,728", "531,456", "1,062,912"]
    assert [row.split()[2] for row in table[1:]] == ["1.189%", "2.378%", "4.755%", "9.510%"]
    assert [row.split()[4] for row in table[1:]] == ["1.304%", "2.492%", "4.869%", "9.622%"]
    assert len({len(row) for row in table}) == 1  # columns end together
    for name in ("LoRA", "LoRA / FE", "LoRA / (FE + LoRA)", "table 4"):
        assert sum(line.startswith(f"{name}  ") for line in lines[9:]) == 1  # what each ratio is
    assert "7,808" in lines[-1] and "5,130" in lines[-1]


def test_defaults(printed: Printed) -> None:
    row = json.loads(printed(SMALL, "--json"))
    assert (row["rank"], row["style"], row["targets"], row["num_classes"]) == (8, "loralib", "blocks", 10)
    assert json.loads(printed(SMALL, "--style", "peft", "--json"))["targets"] == "all"


def test_options_reach_the_count(printed: Printed) -> None:
    argv = [SMALL, "--num-classes", "7", "--image-size", "28", "--targets", "last-block", "--json"]
    row = json.loads(printed(*argv))
    assert (row["num_classes"], row["image_size"], row["targets"]) == (7, 28, "last-block")
    assert row["total_params"] - row["fe_params"] == 7 * 65
    # the last block of a stage has two 3x3 convolutions: r k k (in + out)
    assert row["lora_params"] == sum(2 * 8 * 9 * 2 * width for width in (16, 32, 64))


def test_layers_by_name(printed: Printed) -> None:
    for names, pairs in (("layer1.0.conv1,layer1.0.conv2", 2), ("layer1.0.conv1", 1)):
        row = json.loads(printed(SMALL, "--targets", names, "--json"))
        assert row["targets"] == names.split(",")
        assert row["lora_params"] == pairs * 8 * 9 * 32
    assert "targets layer1.0.conv1, layer1.0.conv2" in printed(SMALL, "--targets", "layer1.0.conv1,layer1.0.conv2")


def test_a_finished_run(printed: Printed, finished: Path) -> None:
    """It has classes of its own, and its head is counted with as many."""
    real = sum(p.numel() for p in load_bundle(finished).parameters())
    for folder in (finished, finished / "model"):
        row = json.loads(printed(str(folder), "--json"))
        assert (row["num_classes"], row["image_size"], row["total_params"]) == (3, 24, real)
    row = json.loads(printed(str(finished), "--json", "--num-classes", "5"))
    assert (row["num_classes"], row["total_params"]) == (5, real + 2 * 65)


def test_the_packaged_model(printed: Printed) -> None:
    real = sum(p.numel() for p in build_model("packaged", classes=10).parameters())
    assert json.loads(printed("packaged", "--json"))["total_params"] == real


def test_nothing_is_fetched(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("autolora.models.creation.within_reach", fetch)
    monkeypatch.setattr("socket.socket.connect", fetch)
    assert "11,181,642" in printed("resnet18")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "no MODEL given in front of the options: a timm name such as resnet18"),
        ("--rank 2 4 resnet20_cifar", "no MODEL given in front of the options: "),
        ("resnet20_cifr", "model 'resnet20_cifr' is unknown to timm; did you mean resnet20_cifar"),
        ("resnet20_cifar --rank 0", "option --rank: '0' is not a whole number of 1 or more"),
        ("resnet20_cifar --rank 2 x", "option --rank: 'x' is not a whole number of 1 or more"),
        ("resnet20_cifar --rank 2.5", "option --rank: '2.5' is not a whole number of 1 or more"),
        ("resnet20_cifar --rank", "option --rank: expected at least one argument (see autolora params --help)"),
        ("resnet20_cifar --num-classes 0", "option --num-classes: '0' is not a whole number of 1 or more"),
        ("resnet20_cifar --image-size x", "option --image-size: 'x' is not a whole number of 1 or more"),
        ("resnet20_cifar --style lora", "style='lora' is not known; use loralib or peft"),
        ("resnet20_cifar --targets block", "targets='block' is not known; use blocks, all, last-block or a list"),
        ("resnet20_cifar --targets layer1.0.conv3", "'layer1.0.conv3' is not a convolution or linear layer of the"),
        ("deit_tiny_patch16_224 --targets last-block", "targets='last-block' selects no layer of VisionTransformer"),
        ("deit_tiny_patch16_224 --image-size 9", "model 'deit_tiny_patch16_224' cannot take images of 9x9"),
        ("resnet20_cifar --jsn", "option --jsn is unknown; did you mean --json? (see autolora params --help)"),
    ],
)
def test_a_mistake_gets_one_line(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["params", *argv.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"autolora: {line}")


def test_models_lists_the_networks_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--filter", "resnet??_cifar", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert {"resnet18_cifar", "resnet34_cifar", "resnet50_cifar"} <= set(names)


def test_help_does_without_torch() -> None:
    code = "import sys; from autolora.cli import run; sys.exit(run(['params', '--help']) or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "autolora params resnet18 --rank 2 4 8 16" in done.stdout
