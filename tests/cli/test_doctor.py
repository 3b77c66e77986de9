"""``autolora doctor`` as it is typed: a list that ends in a verdict, exit codes for scripts, JSON for machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from autolora import finetune
from autolora.cli import run


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    small: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "batch_size": 10}
    # learnt for certain, whatever the rounding of a machine: a model that is often wrong has no order of labels
    finetune(
        photos, method="ft", epochs=16, eps="4/255", lr=0.05, precision="fp32", out=str(folder), progress=False, **small
    )
    return folder


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the doctor; return the exit code and what ``--json`` prints."""

    def call(*argv: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run(["doctor", *map(str, argv), "--json", "--quiet", "--device", "cpu"])
        return code, json.loads(capsys.readouterr().out)

    return call


def check(content: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [check for check in content["checks"] if check["name"] == name]
    return found


def test_a_finished_run_is_healthy(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(finished), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{finished} on ") and lines[1].endswith(", Linf 4/255, 18 test images:")
    assert max(map(len, lines[3:-2])) <= 120
    rows = [line.split() for line in lines if line[2:9].strip() in ("ok", "note", "problem")]
    assert len(rows) == 16 and {row[0] for row in rows} == {"ok"}
    assert lines[-3:-1] == ["Nothing that makes a result worthless was found in 16 checks.", ""]
    assert lines[-1].startswith(f"next       autolora evaluate {finished}")


def test_the_radius_of_the_run_is_examined_unless_another_is_given(finished: Path, examined: Any) -> None:
    assert examined(finished)[1]["threat_model"] == "Linf 4/255"
    code, content = examined(finished, "--eps", "8")
    assert code == 1 and content["problems"] == ["eps"] and content["threat_model"] == "Linf 8"
    assert "did you mean --eps 8/255?" in check(content, "eps")["advice"]
    code, content = examined(finished, "--eps", "0.5", "--norm", "L2")
    assert code == 0 and content["threat_model"] == "L2 0.5"


def test_the_seed_draws_the_sample_and_leaves_the_images_of_a_run_divided_as_they_were(
    tmp_path: Path, examined: Any
) -> None:
    """Divided anew, most of what would be called test images had been trained on."""
    small: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 8, "batch_size": 64}
    out = str(tmp_path / "run")
    finetune("digits", method="ft", epochs=1, label_fraction=0.1, out=out, progress=False, **small)
    found = [examined(out, "--limit", 5000, *seed)[1] for seed in ([], ["--seed", 1])]
    accuracies = [check(content, "accuracy")["details"]["accuracy"] for content in found]
    test = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]["natural"]
    assert accuracies == [pytest.approx(test["accuracy"])] * 2


def test_a_planted_copy_is_found_in_the_data(
    finished: Path, photos: Path, tmp_path: Path, examined: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    shutil.copyfile(data / "train/green/04.png", data / "test/green/02.png")
    shutil.copyfile(data / "train/green/05.png", data / "train/blue/06.png")
    code, content = examined(finished, "--data", data)
    assert code == 1 and content["problems"] == ["duplicates", "label-conflicts"]
    (leak,) = check(content, "duplicates")["details"]["pairs"]
    assert [leak["name"], leak["other_name"]] == [str(data / f) for f in ("test/green/02.png", "train/green/04.png")]
    (conflict,) = check(content, "label-conflicts")["details"]["conflicts"]
    assert {Path(conflict["name"]), Path(conflict["other_name"])} == {
        data / "train/green/05.png",
        data / "train/blue/06.png",
    }
    assert run(["doctor", str(finished), "--data", str(data), "--device", "cpu"]) == 1
    shown = capsys.readouterr().out
    assert "'test/green/02.png' and 'train/green/04.png' (1)" in " ".join(shown.split())
    assert "\n\n2 problems make a result worthless" in shown


def test_images_that_came_after_the_training_are_a_problem(
    finished: Path, photos: Path, tmp_path: Path, examined: Any
) -> None:
    data, own = shutil.copytree(photos, tmp_path / "data"), Path(shutil.copytree(finished, tmp_path / "run"))
    stored = (own / "config.yaml").read_text()
    (own / "config.yaml").write_text(stored.replace(f"data: {photos}\n", f"data: {data}\n"))
    Image.new("RGB", (12, 12), "orange").save(Path(data) / "train/red/new.png")
    code, content = examined(own)
    assert code == 1 and content["problems"] == ["changed-images"]
    assert f"the images of {data} are not those that {own} was trained on" in check(content, "changed-images")["found"]
    assert examined(finished, "--data", data)[1]["problems"] == []  # other images than its own, on purpose


def test_a_permuted_head_is_found_in_the_weights(finished: Path, tmp_path: Path, examined: Any) -> None:
    model = Path(shutil.copytree(finished / "model", tmp_path / "model"))
    state = load_file(model / "model.safetensors")
    head = json.loads((model / "config.json").read_text())["pretrained_cfg"]["classifier"]
    for name in (f"{head}.weight", f"{head}.bias"):
        state[name] = state[name][[1, 2, 0]]
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})
    data = json.loads((finished / "result.json").read_text())["config"]["data"]
    code, content = examined(model, "--data", data, "--split", "train", "--image-size", 12)
    assert code == 1 and content["problems"] == ["accuracy", "label-order"]
    assert check(content, "label-order")["details"]["outputs"] == {"blue": 2, "green": 0, "red": 1}


def test_a_model_of_other_classes_is_examined_and_not_refused(photos: Path, examined: Any) -> None:
    code, content = examined("packaged", "--data", photos, "--limit", 12)
    assert code == 1 and content["problems"] == ["classes"]
    assert "10 classes apart, and the data have 3" in check(content, "classes")["found"]


def test_classes_that_the_model_does_not_know_are_left_out_and_named(
    finished: Path, photos: Path, tmp_path: Path, examined: Any
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    for split in ("train", "test"):
        shutil.copytree(data / split / "red", data / split / "amber")
    code, content = examined(finished, "--data", data)
    assert code == 0 and content["notes"] == ["left-out-classes"]
    assert check(content, "left-out-classes")["details"] == {"left_out": ["amber"]}
    assert check(content, "accuracy")["details"]["accuracy"] > 0.5  # red is still red


def test_quiet_says_nothing_but_the_exit_code(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(finished), "--quiet", "--eps", "8", "--device", "cpu"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["packaged"], "name the images with --data"),
        (["packaged", "--data", "nowhere"], "nowhere does not exist"),
        (["MODEL", "--data", "digits", "--weights", "w.th"], "MODEL is a folder with a model and brings its own"),
        (["packaged", "--data", "cub", "--data-root", "elsewhere"], "cub is not in elsewhere"),
        (["packaged", "--data", "digits", "--eps", "-1"], "negative"),
        (["packaged", "--data", "digits", "--eps", "eight"], "eps='eight' is not a number"),
        (["packaged", "--data", "digits", "--limit", "0"], "limit=0 is too small"),
        (["packaged", "--data", "digits", "--split", "all"], "split='all' is none; use one of train, val, test"),
        (["resnet9000", "--data", "digits"], "resnet9000"),
        ([], "model"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "MODEL/config.json").write_text("{}")
    assert run(["doctor", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and said in err and "Traceback" not in err


def test_cifar10_holds_pictures_twice_and_is_named_for_it(
    shared: Callable[[str], Path], examined: Any, tmp_path: Path
) -> None:
    """One known pair of the data set, found in a small part of it that is packed as a folder."""
    import zipfile

    archive = shared("data/cifar10.zip")
    wanted = {"cifar10/test/cat/0065.jpg", "cifar10/train/cat/3388.jpg"}
    wanted |= {
        f"cifar10/{split}/{name}/{i:04d}.jpg"
        for split in ("train", "test")
        for name in ("cat", "deer")
        for i in range(20)
    }
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path, sorted(wanted))
    code, content = examined("packaged", "--data", tmp_path / "cifar10", "--limit", 8)
    assert code == 1 and "duplicates" in content["problems"]  # 1 of 41 is more than 2 %
    (pair,) = check(content, "duplicates")["details"]["pairs"]
    assert pair["name"].endswith("test/cat/0065.jpg") and pair["other_name"].endswith("train/cat/3388.jpg")
    assert not pair["exact"] and pair["likeness"] > 0.98
