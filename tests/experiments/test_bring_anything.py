"""From `fit` to the end: images that the model enlarges, grey ones, and images of every odd size."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from PIL import Image

from autolora import finetune, load
from autolora.data import ImageSet, load_splits, loader
from autolora.errors import InputError
from autolora.experiments.beginning import sizes
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.evaluating import run_evaluation
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.export import export
from autolora.experiments.export.robust_model import load_model
from autolora.experiments.suites.grid import plan
from autolora.experiments.suites.reading import read_suite
from autolora.models import RobustModel
from autolora.training.draws import Draws

TINY: dict[str, Any] = {"weights": "none", "epochs": 1, "attack": "pgd-1", "batch_size": 10, "rank": 2}
TINY |= {"device": "cpu", "precision": "fp32", "progress": False}


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def enlarged(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LoFT on images of 12 pixels that the model enlarges to 20; large steps, so that everything has moved."""
    size: dict[str, Any] = {"image_size": 12, "upsample_to": 20, "upsampling": "bilinear"}
    out = str(tmp_path_factory.mktemp("enlarged") / "run")
    return finetune(photos, model="resnet20_cifar", method="loft", lr=0.5, out=out, **size, **TINY).folder


def logits(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


# enlarged inside the model


def test_a_run_keeps_how_its_model_enlarges_images(enlarged: Path) -> None:
    model, config = load(enlarged), read_yaml(enlarged / "config.yaml")
    assert (config.image_size, config.upsample_to, config.upsampling) == (12, 20, "bilinear")
    assert model.architecture.input_size == (3, 12, 12) and model.architecture.network_size == (3, 20, 20)


def test_an_evaluation_attacks_the_small_image(enlarged: Path, tmp_path: Path) -> None:
    """What is evaluated later is what was trained: the verdicts of the run come out again."""
    config = EvaluationConfig(
        str(enlarged), attack=("pgd-10",), device="cpu", precision="fp32", out=str(tmp_path / "e")
    )
    found = run_evaluation(config, progress=False)["scores"]
    expected = json.loads((enlarged / "result.json").read_text())["scores"]
    assert {name: found[name]["correct"] for name in expected} == {
        name: score["correct"] for name, score in expected.items()
    }


@pytest.mark.parametrize("kind", ["timm", "robustbench", "peft"])
def test_the_wrapper_of_an_export_enlarges(enlarged: Path, tmp_path: Path, kind: str) -> None:
    if kind == "peft":
        pytest.importorskip("peft")
    folder = export(enlarged, kind, tmp_path / kind)
    x = torch.rand(5, 3, 12, 12)
    torch.testing.assert_close(logits(load_model(folder), x), logits(load(enlarged), x), rtol=1e-5, atol=1e-5)


def test_onnx_holds_the_enlargement(enlarged: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    file = export(enlarged, "onnx", tmp_path / "onnx") / "model.onnx"
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in (1, 3, 7):
        x = torch.rand(count, 3, 12, 12)
        (found,) = session.run(None, {"images": x.numpy()})
        expected = logits(load(enlarged), x)
        torch.testing.assert_close(
            torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )


@pytest.mark.parametrize("kind", ["timm", "peft"])
def test_the_card_says_what_cannot_be_represented(
    enlarged: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last code of the card runs, and says the same as the model on images of its size."""
    if kind == "peft":
        pytest.importorskip("peft")
    folder = export(enlarged, kind, tmp_path / kind)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "enlarges them to 20x20 for its network (bilinear)" in card
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[-1]
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    Image.fromarray(picture).save(folder / "photo.jpg", "PNG")
    names: dict[str, Any] = {}
    exec(code, names)
    if kind == "timm":
        assert "which is another threat model" in card
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        # Pillow rounds the enlarged image to whole grey levels
        torch.testing.assert_close(names["logits"], logits(load(enlarged), x), rtol=2e-3, atol=1e-2)
    else:
        torch.testing.assert_close(names["logits"], logits(load(enlarged), names["images"]), rtol=1e-4, atol=1e-5)


def sized(model: Path | str, **options: Any) -> tuple[int, int | None, str | None]:
    images, upsampling = sizes(RunConfig("photos", str(model), **options))
    return (images, None, None) if upsampling is None else (images, upsampling.to, upsampling.mode)


def test_a_run_from_such_a_run_enlarges_too_unless_told_otherwise(enlarged: Path) -> None:
    assert sized(enlarged) == (12, 20, "bilinear")
    assert sized(enlarged, upsampling="nearest") == (12, 20, "nearest")
    assert sized(enlarged, image_size=16, upsample_to=32) == (16, 32, "bilinear")
    assert sized(enlarged, image_size=20) == (20, None, None)  # as large as its network wants them
    assert sized("resnet20_cifar", image_size=8, upsample_to=16) == (8, 16, "nearest")
    assert sized("resnet20_cifar") == (32, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsample_to": 224}, "say how large images are before they are enlarged with --image-size"),
        ({"upsample_to": 32, "image_size": 32}, "upsample-to=32 enlarges no image of 32 pixels"),
        ({"upsampling": "bilinear"}, "say to how many pixels with --upsample-to"),
    ],
)
def test_what_enlarges_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sized("resnet18", **options)


def test_an_upsampling_that_is_none_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="upsampling='cubic'"):
        finetune(photos, model="resnet20_cifar", image_size=12, upsample_to=20, upsampling="cubic", **TINY)


# grey-scale images and images of odd sizes


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of images of every odd size, half of them grey: PNGs of 1, 8 and 16 bits, and JPEGs."""
    root, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for name, level in (("dark", 60), ("light", 190)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                shape = (int(rng.integers(5, 90)) | 1, int(rng.integers(5, 90)) | 1)
                noisy = np.clip(rng.normal(level, 30, shape), 0, 255).astype(np.uint8)
                image, path = Image.fromarray(noisy), root / split / name / f"{index:02d}.png"
                if index % 5 == 0:
                    Image.fromarray(noisy.astype(np.uint16) * 257).save(path)
                elif index % 5 == 1:
                    image.convert("1").save(path)
                elif index % 5 == 2:
                    image.save(path.with_suffix(".jpg"))
                else:
                    (image if index % 2 else image.convert("RGB")).save(path)
    return root


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 33), ("resnet20_cifar", 17), ("vit_tiny_patch16_224", 49)],
)
def test_grey_images_of_odd_sizes_train_and_ship(odd: Path, tmp_path: Path, name: str, size: int) -> None:
    options = {**TINY, "method": "at", "rank": None}
    result = finetune(odd, model=name, image_size=size, out=str(tmp_path / "run"), **options)
    assert result.content["status"] == "complete" and result.scores["natural"]["total"] == 8
    model = load(result.folder)
    assert isinstance(model, RobustModel) and model.architecture.input_size == (3, size, size)
    test = load_splits(odd, image_size=size, progress=False).test
    x, y = test.__getitems__(range(len(test)))
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])  # grey stays grey, in three channels
    right = (logits(model, x).argmax(dim=1) == y).sum()
    assert int(right) == result.scores["natural"]["correct"]
    shipped = timm.create_model(f"local-dir:{result.folder / 'model'}", pretrained=True).eval()
    torch.testing.assert_close(logits(shipped, model.normalize(x)), logits(model, x))


def test_a_side_that_a_network_cannot_take_is_told(odd: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot take images of 9x9 .*--image-size"):
        finetune(odd, model="vit_tiny_patch16_224", image_size=9, out=str(tmp_path / "run"), **TINY)
    assert not (tmp_path / "run").exists()


# feeding


def test_the_share_of_time_that_training_waits_is_logged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Images that take their time: 3 batches of 10, a fifth of a second each."""
    get, delay = ImageSet.__getitems__, 0.2

    def slow(images: ImageSet, indices: Any) -> Any:
        time.sleep(delay if images.augmenting and len(indices) == 10 else 0)
        return get(images, indices)

    monkeypatch.setattr(ImageSet, "__getitems__", slow)
    options = {**TINY, "method": "at", "rank": None, "image_size": 8, "val_fraction": 0.1}
    with caplog.at_level("INFO", "autolora"):
        folder = finetune(photos, model="resnet20_cifar", out=str(tmp_path / "run"), **options).folder
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert 3 * delay <= row["waiting"] * row["seconds"] < row["seconds"]
    assert f"{row['waiting']:.0%} waiting for images" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_bytes_are_learnt_from_as_the_same_images(photos: Path, workers: int) -> None:
    train = load_splits(photos, image_size=8, progress=False).train

    def batches(in_bytes: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(0)
        return list(Draws(loader(train, 10, True, num_workers=workers, in_bytes=in_bytes), Accelerator(cpu=True)))

    for (x, y), (expected, label) in zip(batches(True), batches(False), strict=True):
        assert x.dtype == torch.float32 and torch.equal(x, expected) and torch.equal(y, label)


# suites


def test_the_papers_scale_attacks_cifar_at_32_pixels() -> None:
    jobs = {str(job.options["data"]): job for job in plan(read_suite("autolora.T1"), "paper").jobs}
    size = {name: (job.options["image_size"], job.options.get("upsample_to")) for name, job in jobs.items()}
    assert size["cifar10"] == size["cifar100"] == (32, 224) and size["dtd"] == (224, None)
    job = jobs["cifar10"]
    assert job.is_run_of({**job.options, "upsampling": "nearest"})  # as a run resolves it
