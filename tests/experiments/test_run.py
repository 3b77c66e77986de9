"""A run from its configuration to its folder, on three classes of tiny pictures."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from autolora import finetune, load
from autolora.errors import InputError
from autolora.experiments import run as run_module
from autolora.experiments.config import RunConfig, config_from, read_yaml, to_yaml
from autolora.experiments.ingredients import default_batch_size, default_epochs, prepare
from autolora.experiments.result import RunResult, write_metrics
from autolora.experiments.run import run
from autolora.experiments.run_folder import check_folder
from autolora.models.adapters import fingerprint
from autolora.training.checkpoint import Checkpoints

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "result.json",
    "split.json",
    "model/config.json",
    "model/model.safetensors",
    "checkpoints/best/model.safetensors",
    "checkpoints/last/best.safetensors",
    "checkpoints/last/manifest.json",
    "checkpoints/last/model.safetensors",
    "checkpoints/last/state.pt",
    "evaluation/evaluation.json",
    "evaluation/verdicts.csv",
}
CLASSES = ["blue", "green", "red"]


@pytest.fixture
def config(photos: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Make the configuration of a run of seconds; the pictures keep their own 12x12 pixels."""

    def make(**options: Any) -> RunConfig:
        small = {"model": "resnet20_cifar", "weights": "none", "epochs": 2, "attack": "pgd-2", "image_size": 12}
        base = {"data": photos, "batch_size": 10, "rank": 2, "lr": 0.05, "device": "cpu", "precision": "fp32"}
        base |= {"track": "none"}  # whatever is installed
        return config_from({**base, **small, "out": str(tmp_path / "run"), **options})

    return make


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of three epochs that the tests only read."""
    return finetune(
        photos,
        model="resnet20_cifar",
        weights="none",
        epochs=3,
        attack="pgd-2",
        eps="4/255",
        image_size=12,
        batch_size=10,
        rank=2,
        lr=0.05,
        track="none",
        device="cpu",
        out=str(tmp_path_factory.mktemp("finished") / "run"),
        progress=False,
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation" / "verdicts.csv").open() as file:
        return list(csv.DictReader(file))


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# what a finished run leaves


def test_run_folder_holds_these_files_and_no_others(finished: RunResult) -> None:
    assert files(finished.folder) == FILES
    assert {path.name for path in (finished.folder / "checkpoints").iterdir()} == {"last", "best"}


def test_result_has_the_fields_that_checks_read(finished: RunResult, photos: Path) -> None:
    content = json.loads((finished.folder / "result.json").read_text())
    assert content == finished.content
    assert content["status"] == "complete"
    assert content["config"] == dataclasses.asdict(read_yaml(finished.folder / "config.yaml"))
    assert content["config"]["data"] == str(photos)
    assert content["environment"].keys() >= {"version", "commit", "torch", "device", "precision"}
    assert content["environment"]["torch"] == torch.__version__
    data = content["data"]
    assert data["classes"] == CLASSES
    assert (data["train"] + data["val"], data["test"], data["test_split"]) == (36, 18, "given")
    split = json.loads((finished.folder / "split.json").read_text())
    assert split["fingerprint"] == data["fingerprint"]
    assert {name: len(split[name]) for name in ("train", "val", "test")} == {
        n: data[n] for n in ("train", "val", "test")
    }
    assert sorted(split["train"] + split["val"] + split["test"]) == list(range(54))
    network = timm.create_model("resnet20_cifar", num_classes=3)
    model = content["model"]
    assert (model["architecture"], model["input_size"]) == ("resnet20_cifar", [3, 12, 12])
    assert model["parameters"] == sum(p.numel() for p in network.parameters()) == model["backbone_parameters"] + 65 * 3
    assert content["selected_on"] == "val"
    assert content["epochs_run"] == 3
    assert content["threat_model"] == {"norm": "Linf", "eps": "4/255", "radius": pytest.approx(4 / 255)}
    assert content["scores"].keys() == {"natural", "pgd-10"}


def test_a_run_says_which_weights_it_began_with(finished: RunResult, config: Callable[..., RunConfig]) -> None:
    """Not what became of them, nor the head, which the seed draws: two runs from one backbone began with the same."""

    def began_with(seed: int) -> str:
        options = {"model": str(finished.folder), "weights": "auto", "epochs": 1, "seed": seed}
        result = run(config(**options, out=str(finished.folder.parent / f"from-{seed}")), progress=False)
        return str(result.content["model"]["started_from"])

    first = fingerprint(load(finished.folder).backbone)
    assert began_with(0) == began_with(1) == first != finished.content["model"]["started_from"]


def test_seconds_are_those_of_the_clock(config: Callable[..., RunConfig]) -> None:
    """Training time is in there, once."""
    started = time.perf_counter()
    result = run(config(), progress=False)
    elapsed = time.perf_counter() - started
    assert sum(row["seconds"] for row in metrics(result.folder)) < result.content["seconds"] < elapsed + 0.001


def test_scores_are_counted_from_the_verdicts(finished: RunResult) -> None:
    rows = table(finished.folder)
    assert [row["index"] for row in rows] == [str(index) for index in range(18)]
    assert [int(row["label"]) for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    for name, score in finished.scores.items():
        correct = sum(int(row[name]) for row in rows)
        assert (score["correct"], score["total"]) == (correct, 18)
        assert score["accuracy"] == correct / 18
        low, high = score["ci95"]
        assert 0 <= low <= score["accuracy"] <= high <= 1
        # Wilson's score interval, solved for p: |p - accuracy| = z sqrt(p (1 - p) / n)
        for bound in (low, high):
            assert abs(bound - score["accuracy"]) == pytest.approx(
                1.959964 * math.sqrt(bound * (1 - bound) / 18), abs=2e-6
            )
    assert all((row["predicted"] == row["label"]) == (row["natural"] == "1") for row in rows)
    evaluation = json.loads((finished.folder / "evaluation" / "evaluation.json").read_text())
    assert evaluation["scores"] == finished.scores


def test_shipped_model_said_what_the_verdicts_say(finished: RunResult, photos: Path) -> None:
    """Pixels by Pillow, the model by ``load``: the predictions are those of the table, image by image."""
    paths = sorted((photos / "test").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    with torch.no_grad():
        predicted = load(finished.folder)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).argmax(1)
    assert predicted.tolist() == [int(row["predicted"]) for row in table(finished.folder)]


def test_timm_loads_the_model(finished: RunResult) -> None:
    model: Any = timm.create_model(f"local-dir:{finished.folder / 'model'}", pretrained=True)
    assert model.pretrained_cfg["label_names"] == CLASSES
    record = json.loads((finished.folder / "model" / "config.json").read_text())["autolora"]
    assert record["threat_model"] == "Linf 4/255"
    assert record["scores"] == finished.scores


def test_metrics_have_a_line_per_epoch(finished: RunResult) -> None:
    rows = metrics(finished.folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    terms = {"natural", "adversarial", "consistency", "lambda1", "lambda2"}
    for row in rows:
        clock = {"seconds", "images_per_second", "waiting"}
        assert row.keys() == {"epoch", "lr", "val_natural", "val_robust"} | clock | terms
        assert all(math.isfinite(value) for value in row.values())
        assert 0 <= row["val_natural"] <= 1
        assert 0 <= row["val_robust"] <= 1
        assert row["lambda1"] + row["lambda2"] / 6 == pytest.approx(1)  # Eq. 6 and 7 with alpha = 1, lambda2_max = 6
        assert row["seconds"] > 0


def test_selected_epoch_is_the_first_best_on_validation(finished: RunResult) -> None:
    scores = [row["val_robust"] for row in metrics(finished.folder)]
    selection = finished.content["selection"]
    assert selection["score"] == "val_robust"
    assert selection["accuracy"] == max(scores)
    assert selection["epoch"] == scores.index(max(scores)) + 1


def test_config_of_a_run_makes_the_same_run(finished: RunResult, tmp_path: Path) -> None:
    config = dataclasses.replace(read_yaml(finished.folder / "config.yaml"), out=str(tmp_path / "again"))
    again = run(config, progress=False)
    assert again.scores == finished.scores
    assert table(again.folder) == table(finished.folder)
    varying = {"seconds", "images_per_second", "waiting"}
    for row, other in zip(metrics(again.folder), metrics(finished.folder), strict=True):
        assert {k: v for k, v in row.items() if k not in varying} == {
            k: v for k, v in other.items() if k not in varying
        }


def test_another_seed_is_another_split(config: Callable[..., RunConfig]) -> None:
    first, same, second = (prepare(config(seed=seed), progress=False).splits for seed in (0, 0, 1))
    assert first.val.names == same.val.names
    assert first.train.names == same.train.names
    assert first.val.names != second.val.names
    assert first.test.names == second.test.names  # the data set's own


def test_what_was_left_open_is_found_out_and_kept(config: Callable[..., RunConfig]) -> None:
    resolved = prepare(config(epochs=None, batch_size=None, image_size=None, eps=8 / 255), progress=False).config
    assert resolved.image_size == 32
    assert resolved.epochs == default_epochs(36)
    assert resolved.batch_size == default_batch_size(36)
    assert resolved.eps == "8/255"


@pytest.mark.parametrize("images", [2, 20, 100, 500, 1149, 2500, 10_000, 50_000])
def test_defaults_fit_the_data(images: int) -> None:
    """The paper's 60 epochs of batches of 128 where there is enough for it; never more steps for less data."""
    size = default_batch_size(images)
    assert 2 <= size <= 128
    assert size == 128 or images // (2 * size) < 60
    assert default_epochs(images) <= 60
    if images >= 10_000:
        assert (size, default_epochs(images)) == (128, 60)


def test_natural_fine_tuning_selects_on_natural_accuracy(config: Callable[..., RunConfig]) -> None:
    result = run(config(method="ft", rank=None, epochs=1), progress=False)
    assert result.content["selection"]["score"] == "val_natural"


# interruption


def interrupted(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run, and interrupt it when its first epoch is over."""

    def write_and_stop(path: Path, rows: list[dict[str, float]]) -> None:
        write_metrics(path, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("autolora.experiments.tracking.write_metrics", write_and_stop)
        run(config, progress=False)


@pytest.mark.parametrize("schedule", ["auto", "cosine"])
def test_resumed_is_uninterrupted(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    options = {"epochs": 3, "schedule": schedule, "track": "none"}
    whole = run(config(**options, out=str(tmp_path / "whole")), progress=False)

    interrupted(config(**options), monkeypatch)
    folder = config().folder
    assert len(metrics(folder)) == 1
    assert not (folder / "result.json").exists()
    assert not any(path.name.startswith(".") for path in folder.rglob("*"))

    torch.manual_seed(1234)  # a new process starts elsewhere
    resumed = run(config(**options), resume=True, progress=False)
    assert resumed.scores == whole.scores
    assert table(resumed.folder) == table(whole.folder)
    for name in ("adversarial", "val_natural", "val_robust", "lr", "epoch"):
        assert [row[name] for row in metrics(resumed.folder)] == [row[name] for row in metrics(whole.folder)]
    x = torch.rand(4, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(load(resumed.folder)(x), load(whole.folder)(x))
    assert files(resumed.folder) == FILES


def test_interrupted_after_training_evaluates_again(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run_module, "save_bundle", interrupted)
        run(config(), progress=False)
    result = run(config(), resume=True, progress=False)
    assert result.content["epochs_run"] == 2
    assert files(result.folder) == FILES


def test_resume_of_nothing_starts(config: Callable[..., RunConfig]) -> None:
    assert run(config(epochs=1), resume=True, progress=False).content["epochs_run"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 5), ("seed", 3), ("method", "at"), ("eps", "4/255"), ("batch_size", 12), ("model", "resnet18")],
)
def test_resume_as_another_run_is_refused(config: Callable[..., RunConfig], name: str, value: Any) -> None:
    stopped(config())
    with pytest.raises(
        InputError, match=rf"--resume: .* was started with {name}=.*, not {value}; continue it with --config"
    ):
        run(config(**{name: value}), resume=True, progress=False)


def test_resume_knows_an_equal_radius(config: Callable[..., RunConfig]) -> None:
    stopped(config(epochs=1))
    assert run(config(epochs=1, eps=8 / 255), resume=True, progress=False).scores


def test_resume_knows_its_data_by_another_path(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    stopped(config(epochs=1))
    link = tmp_path / "link"
    link.symlink_to(config().data)
    with pytest.raises(InputError, match=r"was started with data=.*, not .*elsewhere"):
        run(config(epochs=1, data=str(tmp_path / "elsewhere")), resume=True, progress=False)
    assert run(config(epochs=1, data=str(link)), resume=True, progress=False).content["config"]["data"] == str(link)


def test_what_is_left_open_is_as_it_was_when_the_run_began(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the command line would find out anew: other validation images would have been trained on."""
    options: dict[str, Any] = {"epochs": 2, "batch_size": 12, "val_fraction": 0.34, "classes": "red,blue"}
    options |= {"method_options": {"alpha": 2.0}, "schedule_options": {"rho": 0.5}, "step_size": "3/255"}
    whole = run(config(**options, out=str(tmp_path / "whole")), progress=False)

    interrupted(config(**options), monkeypatch)
    kept = (config().folder / "config.yaml").read_text()
    open_again = dict.fromkeys([*options, "rank", "image_size"])
    resumed = run(config(**open_again), resume=True, progress=False)
    assert (resumed.folder / "config.yaml").read_text() == kept
    assert {**resumed.content["config"], "out": None} == {**whole.content["config"], "out": None}
    assert resumed.scores == whole.scores and table(resumed.folder) == table(whole.folder)


def test_a_row_that_was_not_written_is_written_after_all(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the last epoch comes before its row: who is stopped between has no epoch left to log."""

    def interrupted(path: Path, rows: list[dict[str, float]]) -> None:
        if len(rows) == 2:
            raise KeyboardInterrupt
        write_metrics(path, rows)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("autolora.experiments.tracking.write_metrics", interrupted)
        run(config(), progress=False)
    assert [row["epoch"] for row in metrics(config().folder)] == [1]
    assert [row["epoch"] for row in metrics(run(config(), resume=True, progress=False).folder)] == [1, 2]


def stopped(config: RunConfig) -> None:
    """Leave the folder of a run that was killed in its first epoch."""
    config.folder.mkdir(parents=True)
    resolved = dataclasses.replace(config, eps="8/255")
    (config.folder / "config.yaml").write_text(to_yaml(resolved))


# what is refused, and leaves nothing


def test_a_finished_run_is_not_overwritten(finished: RunResult, config: Callable[..., RunConfig]) -> None:
    before = (finished.folder / "result.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(InputError, match="holds a finished run; name another folder with --out"):
            run(config(out=str(finished.folder)), resume=resume, progress=False)
    assert (finished.folder / "result.json").read_bytes() == before


def test_a_stopped_run_asks_for_resume(config: Callable[..., RunConfig]) -> None:
    stopped(config())
    with pytest.raises(InputError, match="holds a run that stopped; continue it with --resume, or name another"):
        run(config(), progress=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(config: Callable[..., RunConfig], resume: bool) -> None:
    folder = config().folder
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and holds no run"):
        run(config(), resume=resume, progress=False)
    assert files(folder) == {"thesis.tex"}


def test_a_file_is_no_folder(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a folder"):
        run(config(out=str(tmp_path / "file")), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere/"}, "nowhere.* does not exist"),
        ({"model": "resnet20_cifr"}, "unknown to timm; did you mean resnet20_cifar"),
        ({"model": "resnet20_cifar", "weights": "nowhere.pth"}, "no such file"),
        ({"method": "autolora2"}, "method 'autolora2' is unknown; did you mean autolora"),
        ({"method": "ft"}, "method ft has no option 'rank'"),
        ({"method_options": {"aplha": 2}}, "has no option 'aplha'; did you mean alpha"),
        ({"method_options": {"alpha": "two"}}, "method autolora: alpha='two' is not a number"),
        ({"method_options": {"alpha": -1}}, "alpha=-1: the sharpening exponent is positive"),
        ({"method_options": {"targets": "everywhere"}}, "everywhere"),
        ({"method_options": {"targets": ["layer9.conv"]}}, "layer9"),
        ({"schedule_options": {"speed": 2}}, "schedule auto has no option 'speed'; it has checkpoints, rho"),
        ({"schedule": "cosine", "schedule_options": {"warmup": "x"}}, "schedule cosine: warmup='x' is not an integer"),
        ({"schedule": "cosine", "schedule_options": {"warmup": 2}}, "warmup=2 does not fit in epochs=2"),
        ({"lr": float("nan")}, "lr=nan is not a number"),
        ({"eps": 8}, "did you mean 8/255"),
        ({"eps": "8/"}, "is not a number"),
        ({"norm": "L3"}, "norm='L3' is not one of Linf, L2"),
        ({"attack": "fgsm"}, "attack 'fgsm' is unknown; use pgd-K"),
        ({"attack": "pgd-0"}, "attack=pgd-0 takes no step and attacks nothing"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"classes": "blue,rde"}, "no class 'rde'; did you mean 'red'"),
        ({"val_fraction": 1.5}, "val_fraction=1.5 is not a share"),
        ({"label_fraction": 0.0}, "label_fraction=0.0 is not a share"),
    ],
)
def test_nothing_is_written_when_something_is_bad(
    config: Callable[..., RunConfig], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(config(**options), progress=False)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["runs/mine", ".", None])
def test_a_run_among_its_images_is_refused(
    config: Callable[..., RunConfig], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    """Afterwards it would be a class of theirs, and could not even be continued."""
    data = shutil.copytree(photos / "train", tmp_path / "data")
    (data / "empty").mkdir()
    monkeypatch.chdir(data / "empty" if out == "." else data)
    before = files(data)
    with pytest.raises(InputError, match=r"lies in data=.*, where it would be taken for a class .* with --out"):
        run(config(data=".." if out == "." else ".", out=out), progress=False)
    assert files(data) == before


def test_a_folder_with_the_name_of_a_set_is_not_its_images(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    check_folder(config(data="digits", out="digits/run"), resume=False)


@pytest.mark.parametrize(("eps", "said"), [("8/255", "next to no adversary"), (128, "uniform grey"), (0.5, None)])
def test_a_radius_out_of_proportion_is_said(
    config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture, eps: float | str, said: str | None
) -> None:
    prepare(config(norm="L2", eps=eps, image_size=32), progress=False)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (said is not None) and all(str(said) in message for message in warnings)


def test_a_bad_image_leaves_nothing(config: Callable[..., RunConfig], photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for path in photos.rglob("*.png"):
        (data / path.relative_to(photos)).parent.mkdir(parents=True, exist_ok=True)
        (data / path.relative_to(photos)).write_bytes(path.read_bytes())
    bad = data / "train" / "red" / "03.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(InputError, match=r"red/03\.png cannot be read"):
        run(config(data=data), progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    result = run(config(data=data, skip_bad_images=True, epochs=1), progress=False)
    assert result.content["data"]["train"] + result.content["data"]["val"] == 35
    assert any("03.png" in note for note in result.content["data"]["notes"])


def test_checkpoints_are_replaced_whole(config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while the second checkpoint is written leaves the first, and the run goes on from it."""
    save, calls = torch.save, 0

    def killed(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        save(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch, "save", killed)
        run(config(), progress=False)
    assert Checkpoints(config().folder / "checkpoints").load_last() is not None
    assert run(config(), resume=True, progress=False).content["epochs_run"] == 2


def test_an_api_option_that_is_unknown(photos: Path) -> None:
    with pytest.raises(InputError, match=r"option 'epoch' is unknown; did you mean epochs\?"):
        finetune(photos, epoch=3)
