"""``autolora evaluate`` on a finished run: scores that its own run confirms, verdicts, resume, and every refusal."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from autolora import finetune, load
from autolora.cli import run
from autolora.errors import InputError
from autolora.evaluation.judging import judge
from autolora.experiments.config import read_yaml, to_yaml
from autolora.experiments.evaluation_config import EvaluationConfig
from autolora.experiments.subject import find_subject
from autolora.models.bundle import build_classifier, save_bundle


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    small: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "batch_size": 10}
    finetune(photos, method="ft", epochs=8, eps="4/255", lr=0.05, out=str(folder), progress=False, **small)
    return folder


@pytest.fixture
def subject(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())["scores"]


def verdicts(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "verdicts.csv").open()))


def test_pgd_gives_the_scores_and_verdicts_of_the_run_itself(subject: Path, tmp_path: Path) -> None:
    assert run(["evaluate", str(subject), "--attack", "pgd-10", "--out", str(tmp_path / "e"), "--quiet"]) == 0
    own = json.loads((subject / "result.json").read_text())["scores"]
    found = scores(tmp_path / "e")
    for name in ("natural", "pgd-10"):
        assert {key: found[name][key] for key in own[name]} == own[name]
    assert verdicts(tmp_path / "e") == verdicts(subject / "evaluation")


def test_autoattack_is_labelled_counted_and_no_easier_than_its_parts(
    subject: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(subject), "--fast", "--limit", "6"]) == 0
    shown = capsys.readouterr().out
    folder = subject / "evaluation" / "autoattack-fast"
    (score,) = [score for name, score in scores(folder).items() if name == "autoattack-fast"]
    assert score["label"] == "AA-fast-adapted (K=3): apgd-ce and apgd-t, an upper bound" and score["label"] in shown
    assert score["total"] == 6 and list(score["after"]) == ["apgd-ce", "apgd-t"]
    assert score["accuracy"] == score["after"]["apgd-t"] <= score["after"]["apgd-ce"]
    rows = verdicts(folder)
    assert sum(int(row["autoattack-fast"]) for row in rows) == score["correct"]
    assert all(int(row["apgd-t"]) <= int(row["apgd-ce"]) <= int(row["natural"]) for row in rows)
    labels = [row["label"] for row in rows]
    assert sorted(labels.count(label) for label in set(labels)) == [2, 2, 2]  # a stratified sample


def test_what_an_image_fell_to_is_kept_and_fools_the_model(subject: Path, tmp_path: Path) -> None:
    argv = ["evaluate", str(subject), "--fast", "--eps", "64/255", "--out", str(tmp_path / "e"), "--quiet"]
    assert run(argv) == 0
    shards = [load_file(path) for path in sorted((tmp_path / "e" / "shards").rglob("*.safetensors"))]
    model = load(subject)
    assert sum(len(shard["fallen"]) for shard in shards) > 0
    for shard in shards:
        with torch.no_grad():
            assert (model(shard["fallen"]).argmax(dim=1) != shard["label"][shard["by"] > 0]).all()


def test_corruptions_come_with_it_if_asked_for(
    subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e"
    assert run(["evaluate", str(subject), "--attack", "pgd-1", "--corruptions", "--out", str(out)]) == 0
    found = json.loads((out / "evaluation.json").read_text())["corruptions"]
    assert len(found["types"]) == 15 and found["total"] == len(verdicts(out))
    assert f"{found['mean_accuracy']:.1%}" in capsys.readouterr().out


def test_several_radii_make_a_curve(subject: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    radii = [word for eps in ("8/255", "0/255", "32/255") for word in ("--eps", eps)]
    assert run(["evaluate", str(subject), "--attack", "pgd-3", *radii, "--out", str(out), "--quiet"]) == 0
    content = json.loads((out / "evaluation.json").read_text())
    curve = {point["eps"]: point["scores"]["pgd-3"]["accuracy"] for point in content["curve"]}
    assert list(curve) == ["8/255", "0/255", "32/255"] and curve["0/255"] == content["scores"]["natural"]["accuracy"]
    assert curve["0/255"] >= curve["8/255"] >= curve["32/255"]
    assert content["threat_model"] == "Linf 8/255" and content["scores"] == content["curve"][0]["scores"]


def test_a_radius_of_normalised_images_is_said_in_pixels(
    subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image that differs from another by eps in every normalised channel differs by eps std in pixels."""
    normalize, zeros = load(subject).normalize, torch.zeros(1, 3, 12, 12)
    pixels = 0.5 * (1 / (normalize(zeros + 1) - normalize(zeros))).mean()
    argv = ["evaluate", str(subject), "--attack", "pgd-3", "--device", "cpu"]
    assert run([*argv, "--eps", "0.5", "--eps-in", "normalised", "--out", str(tmp_path / "a")]) == 0
    assert "0.5 in normalised units is" in capsys.readouterr().err
    assert run([*argv, "--eps", f"{pixels:.6g}", "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert scores(tmp_path / "a") == scores(tmp_path / "b")
    assert verdicts(tmp_path / "a") == verdicts(tmp_path / "b")


def test_a_killed_evaluation_goes_on_where_it_stopped(
    subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["evaluate", str(subject), "--fast", "--batch-size", "4", "--quiet", "--out"]
    assert run([*argv, str(tmp_path / "whole")]) == 0
    judged: list[int] = []

    def killed(*arguments: Any, **options: Any) -> None:
        def stop(shard: Any) -> None:
            judged.append(len(shard.by))
            if len(judged) == 2:
                raise KeyboardInterrupt

        judge(*arguments, **{**options, "on_shard": stop})

    with monkeypatch.context() as patch:
        patch.setattr("autolora.experiments.evaluation.judge", killed)
        assert run([*argv, str(tmp_path / "killed")]) == 130
    assert judged == [4, 4] and not (tmp_path / "killed" / "evaluation.json").exists()
    assert run([*argv, str(tmp_path / "killed")]) == 2  # only with --resume
    assert run([*argv, str(tmp_path / "killed"), "--resume"]) == 0
    assert scores(tmp_path / "killed") == scores(tmp_path / "whole")
    assert verdicts(tmp_path / "killed") == verdicts(tmp_path / "whole")


def test_an_evaluation_is_not_continued_with_another_attack_strength(subject: Path, tmp_path: Path) -> None:
    argv = ["evaluate", str(subject), "--attack", "pgd-3", "--quiet", "--out", str(tmp_path / "e")]
    assert run(argv) == 0
    (tmp_path / "e" / "evaluation.json").unlink()
    assert run([*argv, "--resume", "--seed", "1"]) == 2
    assert run([*argv, "--resume", "--image-size", "16"]) == 2  # a convolutional network takes any size


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--attack", "pgd"], "attack 'pgd' is unknown"),
        (["--attack", "autoatack"], "use autoattack, autoattack-fast, or pgd-K"),
        (["--attack", "pgd-²"], "attack 'pgd-²' is unknown"),
        (["--device", "gpu"], "--device: 'gpu' is not one of auto, cpu, cuda"),
        (["--eps", "8"], "did you mean 8/255?"),
        (["--limit", "0"], "limit=0 is too small"),
        (["--weights", "nowhere.th"], "is a run and brings its own; leave --weights out"),
        (["--weights-format", "plain"], "is a run and brings its own; leave --weights-format out"),
        (["--norm", "L2"], "was trained under Linf, and its eps 4/255 is another adversary under L2; give the radius"),
        (["--fast", "--attack", "pgd-1"], "fast is autoattack-fast on a sample, and attack=pgd-1 is something else"),
        (["--fast", "--attack", "autoattack"], "attack=autoattack is something else"),
        (["--restarts", "5"], "restarts=5 are of PGD, and autoattack has its own"),
        (["--attack", "pgd-0"], "attack=pgd-0 takes no step and attacks nothing"),
        (["--engine", "reference", "--attack", "pgd-3"], "engine=reference has no pgd-3"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--data", "digits"], "class"),
    ],
)
def test_a_mistake_gets_one_line(
    options: list[str], line: str, subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(subject), "--out", str(tmp_path / "e"), *options, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert line in err and len(err.splitlines()) == 1 and not (tmp_path / "e").exists()


def own_data(subject: Path, data: Path | str) -> None:
    """Let a run say that its images lie elsewhere; their fingerprint does not depend on that."""
    stored = read_yaml(subject / "config.yaml")
    (subject / "config.yaml").write_text(to_yaml(replace(stored, data=str(data))))


def test_images_that_came_after_the_training_are_not_judged_in_silence(
    subject: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    own_data(subject, data)
    assert len(find_subject(str(subject), progress=False).images) == 18
    shutil.copyfile(data / "train/red/00.png", data / "train/red/new.png")
    with pytest.raises(InputError, match=r"are not those that .* was trained on .*; put them back .* with --data"):
        find_subject(str(subject), progress=False)
    assert not caplog.records
    (tmp_path / "link").symlink_to(data)
    assert len(find_subject(str(subject), data=str(tmp_path / "link"), progress=False).images) == 18
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "was trained on" in caplog.text
    caplog.clear()
    shutil.copytree(data, tmp_path / "others")
    find_subject(str(subject), data=str(tmp_path / "others"), progress=False)  # other images are meant to be others
    (data / "train/red/new.png").unlink()
    find_subject(str(subject), data=str(data), progress=False)
    assert not caplog.records


def test_a_run_whose_images_are_not_here_says_whose_they_are(
    subject: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(subject, "photographs")
    monkeypatch.chdir(tmp_path)
    said = r"photographs does not exist, where .*run says that its images lie, counted from the folder .* with --data"
    with pytest.raises(InputError, match=said):
        find_subject(str(subject), progress=False)
    shutil.copytree(photos, tmp_path / "photographs")
    assert len(find_subject(str(subject), progress=False).images) == 18


def test_a_radius_out_of_proportion_is_said(subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(subject), "--attack", "pgd-1", "--limit", "3", "--norm", "L2", "--quiet"]
    assert run([*argv, "--eps", "128", "--eps", "0.02", "--eps", "0.5", "--out", str(tmp_path / "e")]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("L2 128 lets every image be made uniform grey")
    assert second.startswith("L2 0.02 is next to no adversary")


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    for model, line in ((str(weights), "--weights"), ("resnet81", "unknown"), ("resnet20_cifar", "--data")):
        options = ["--weights", "none"] if model == "resnet20_cifar" else []
        assert run(["evaluate", model, *options, "--out", str(tmp_path / "e"), "--quiet"]) == 2
        assert line in capsys.readouterr().err


def test_a_model_of_another_number_of_classes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "packaged", "--data", str(photos), "--out", str(tmp_path / "e"), "--quiet"]
    assert run(argv) == 2
    assert "10 classes" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of ten classes that is right on its images, and a folder of them: ten colours."""
    root = tmp_path_factory.mktemp("ten")
    colours = np.random.default_rng(0).integers(0, 256, (10, 1, 1, 3), dtype=np.uint8)
    for label, colour in enumerate(colours):
        image = Image.fromarray(np.broadcast_to(colour, (12, 12, 3)).copy())
        for name in ("train/{}/0.png", "train/{}/1.png", "test/{}/0.png"):
            path = root / "images" / name.format(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    x = torch.from_numpy(colours).float().permute(0, 3, 1, 2).expand(10, 3, 12, 12) / 255
    model = build_classifier("resnet20_cifar", weights="none", image_size=12)
    with torch.no_grad():
        features = model.backbone(model.normalize(x))
        model.head.weight.copy_(torch.linalg.lstsq(features, torch.eye(10)).solution.T)
        model.head.bias.zero_()
    save_bundle(model, root / "model", [str(label) for label in range(10)], {})
    return root / "model", root / "images"


def test_the_reference_package_judges_and_its_verdicts_are_not_mixed_with_ours(
    ten_classes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyautoattack")
    out = tmp_path / "e"
    argv = ["evaluate", str(ten_classes[0]), "--data", str(ten_classes[1]), "--fast", "--batch-size", "4"]
    argv += ["--out", str(out)]
    assert run([*argv, "--engine", "reference"]) == 0
    score = scores(out)["autoattack-fast"]
    assert score["label"].startswith(
        "AA-fast: apgd-ce and apgd-t, an upper bound, by the reference package pyautoattack"
    )
    assert score["label"] in capsys.readouterr().out
    assert scores(out)["natural"]["correct"] == score["total"] == 10 and score["correct"] < 10
    assert {"autoattack-fast", "apgd-ce", "apgd-t"} <= set(verdicts(out)[0])
    assert score["after"] == {part: sum(int(row[part]) for row in verdicts(out)) / 10 for part in ("apgd-ce", "apgd-t")}

    found = (out / "evaluation.json").read_bytes()
    (out / "evaluation.json").unlink()
    next(out.rglob("*.safetensors")).unlink()
    assert run([*argv, "--resume"]) == 2
    assert "ReferenceAutoAttack" in capsys.readouterr().err
    assert run([*argv, "--resume", "--engine", "reference"]) == 0
    assert (out / "evaluation.json").read_bytes() == found


def test_the_reference_package_is_refused_for_few_classes_before_anything_is_written(
    subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyautoattack")
    argv = ["evaluate", str(subject), "--engine", "reference", "--out", str(tmp_path / "e"), "--quiet"]
    assert run(argv) == 2
    err = capsys.readouterr().err
    assert "3 classes" in err and "--engine own" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "e").exists()


def test_the_reference_package_is_asked_for_before_model_and_data_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    assert run(["evaluate", "nowhere", "--engine", "reference"]) == 2
    err = capsys.readouterr().err
    assert "pip install '.[reference]'" in err and len(err.splitlines()) == 1


def test_both_engines_can_be_asked_about_one_run(subject: Path) -> None:
    own, reference = EvaluationConfig(str(subject)), EvaluationConfig(str(subject), engine="reference")
    assert own.folder != reference.folder
    assert reference.folder.parent.parent == own.folder.parent  # `compare` reads evaluation/*/evaluation.json
