"""What the models tell: a small run, trained and attacked for real, and a report that looks at its images."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from autolora.cli import run as cli
from autolora.experiments.evaluating import sample
from autolora.report.attacked import Attacked, attack_images, load_images, load_model
from autolora.report.classes import confusion, natural_confusion
from autolora.report.collected import CollectedRun, collect
from autolora.report.examination import Examination, examine
from autolora.report.gallery import choose, data_uri, magnified
from autolora.report.page import render

from .folders import write_run
from .pages import Page
from .test_page import check

TINY = ["--model", "resnet20_cifar", "--weights", "none", "--image-size", "12", "--epochs", "2", "--attack", "pgd-1"]
TINY += ["--batch-size", "9", "--device", "cpu", "--quiet", "--lr", "0.05", "--method", "ft", "--eps", "4/255"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on 18 test images, and what AutoAttack's first attacks found on 12 of them."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli(["fit", str(photos), *TINY, "--out", str(folder)]) == 0
    assert cli(["evaluate", str(folder), "--attack", "pgd-5", "--limit", "12", "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def examined(trained: Path) -> tuple[CollectedRun, Examination]:
    (run,) = collect([trained])
    return run, examine([run], data=None, gallery=True, device=CPU, progress=False)


def picture(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_confusion_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 7, 300), rng.integers(0, 7, 300)
    found = confusion("", "", "abcdefg", label, predicted)
    np.testing.assert_array_equal(found.counts, confusion_matrix(label, predicted, labels=range(7)))
    truth, answer, images, share = found.pairs[0]
    assert truth != answer and images == max(n for row in range(7) for n in np.delete(found.counts[row], row))
    assert share == images / (label == "abcdefg".index(truth)).sum()


def test_no_answer_has_a_column_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    path = folder / "evaluation/verdicts.csv"
    path.write_text(path.read_text().replace("\n57,0,1,0,0", "\n57,0,0,0,0"))  # the label, and wrong: a NaN
    (run,) = collect([folder])
    found = natural_confusion(run)
    assert found is not None and found.columns[-1] == "no finite answer"
    assert found.counts[:, -1].tolist() == [1, 0, 0] and found.counts.sum() == 60
    assert np.trace(found.counts[:, :3]) == 48


def test_the_difference_is_magnified_around_grey() -> None:
    x = torch.full((3, 2, 2), 0.5)
    x_adv = x + torch.tensor([8 / 255, -8 / 255, 0.2]).view(3, 1, 1)
    expected = [0.5 + 80 / 255, 0.5 - 80 / 255, 1.0]
    torch.testing.assert_close(magnified(x, x_adv)[:, 0, 0], torch.tensor(expected))


def test_small_images_lose_nothing_and_large_ones_are_shrunk() -> None:
    pixels = torch.randint(0, 256, (3, 32, 24), generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(picture(data_uri(pixels / 255)), pixels.permute(1, 2, 0).numpy())
    large = data_uri(torch.rand(3, 224, 112, generator=torch.Generator().manual_seed(0)))
    assert picture(large).shape == (160, 80, 3) and len(large) < 40_000


def test_who_is_wrong_without_an_attack_stays_wrong() -> None:
    natural = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [torch.nan, torch.nan]])
    adversarial = torch.tensor([[0.2, 0.8], [0.9, 0.1], [torch.nan, torch.nan], [0.9, 0.1]])
    images = torch.zeros(4, 3, 2, 2)
    found = Attacked((0, 1, 2, 3), torch.tensor([0, 0, 1, 0]), images, images, natural, adversarial)
    assert [answers.tolist() for answers in found.answers] == [[0, 1, 1, -1], [1, 1, -1, -1]]


def test_the_gallery_shows_what_the_verdicts_say(examined: tuple[CollectedRun, Examination]) -> None:
    run, found = examined
    assert found.lacks == {} and found.doubts == {}
    ((names, groups),) = found.galleries
    assert names == (run.name,) and run.verdicts is not None
    natural, attacked = run.verdicts.right["natural"], run.verdicts.right["pgd-10"]
    totals = {"Fell to the attack": int((natural & ~attacked).sum()), "Held against it": int(attacked.sum())}
    assert {group.title: group.of for group in groups} == totals and sum(totals.values()) > 6
    for group in groups:
        assert len(group.exhibits) == min(6, group.of)
        for exhibit in group.exhibits:
            (showing,) = exhibit.showings
            assert exhibit.label == run.classes[run.verdicts.label[exhibit.index]]
            assert showing.natural.name == exhibit.label and showing.natural.right
            assert showing.attacked.right == (group.title == "Held against it") == attacked[exhibit.index]
            assert exhibit.file.startswith(f"{exhibit.label}/")
            clean, adversarial = picture(exhibit.clean).astype(int), picture(showing.adversarial).astype(int)
            assert int(not showing.attacked.right) <= np.abs(adversarial - clean).max() <= 4
            np.testing.assert_allclose(picture(showing.difference), 127.5 + 10 * (adversarial - clean), atol=11)


def test_confusions_under_attack_agree_with_the_scores(examined: tuple[CollectedRun, Examination]) -> None:
    run, found = examined
    matrix = found.confusions[run.name]
    assert "All 18 test images" in matrix.note and matrix.counts.sum() == 18
    assert np.trace(matrix.counts) == run.result["scores"]["pgd-10"]["correct"]


def test_images_chosen_for_the_gallery_are_no_sample(trained: Path, tmp_path: Path) -> None:
    """The gallery takes some of eighteen images by their verdict; confusions are counted on six drawn fairly."""
    folder = tmp_path / "fair"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "evaluation/pgd-5")
    (run,) = collect([folder])
    found = examine([run], data=None, gallery=True, device=CPU, progress=False, sampled=6)
    matrix = found.confusions["fair"]
    assert matrix.note.startswith("A sample of 6 of 18 test images")
    assert matrix.counts.sum(axis=1).tolist() == [2, 2, 2]  # as many of each class, as among all
    places = sample(load_images(run, None, progress=False), 6, 0)
    assert run.verdicts is not None and len(set(places)) == 6
    label, right = run.verdicts.label[places], run.verdicts.right["pgd-10"][places]
    assert np.diag(matrix.counts).tolist() == np.bincount(label[right], minlength=3).tolist()
    assert not {shown.index for group in found.galleries[0][1] for shown in group.exhibits} <= set(places)


def test_without_images_the_kept_ones_are_asked(trained: Path) -> None:
    (run,) = collect([trained])
    found = examine([run], data=None, gallery=False, device=CPU, progress=False)
    assert "--no-gallery" in found.lacks[run.name] and found.galleries == []
    matrix = found.confusions[run.name]
    kept = json.loads((trained / "evaluation/pgd-5/evaluation.json").read_text())["scores"]["pgd-5"]
    assert matrix.title == "under PGD-5 (RA)" and matrix.counts.sum() == kept["total"] == 12
    assert np.trace(matrix.counts) == kept["correct"]
    assert found.sizes[run.name].head == 64 * 3 + 3


def test_other_images_are_refused(trained: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    image = tmp_path / "photos/test/red/00.png"
    Image.new("RGB", (12, 12)).save(image)
    (run,) = collect([trained])
    found = examine([run], data=str(tmp_path / "photos"), gallery=True, device=CPU, progress=False)
    assert "does not hold the images" in found.lacks[run.name] and "--data" in found.lacks[run.name]
    assert run.name in found.confusions  # of the images that the evaluation kept
    found = examine([run], data=str(tmp_path / "nowhere"), gallery=True, device=CPU, progress=False)
    assert "does not exist" in found.lacks[run.name]


def test_another_model_is_noticed(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(trained, folder)
    path = folder / "evaluation/verdicts.csv"
    header, *lines = path.read_text().splitlines()
    turned = [line[:-3] + {"1,1": "1,0", "1,0": "1,1", "0,0": "0,0"}[line[-3:]] for line in lines]
    path.write_text("\n".join([header, *turned]) + "\n")
    result = json.loads((folder / "result.json").read_text())
    correct = sum(line.endswith(",1") for line in turned)
    result["scores"]["pgd-10"] |= {"correct": correct, "accuracy": correct / 18}
    (folder / "result.json").write_text(json.dumps(result))
    (run,) = collect([folder])
    found = examine([run], data=None, gallery=True, device=CPU, progress=False)
    assert "have another verdict than in the file" in found.doubts[run.name]


def test_the_attack_stays_in_the_threat_model(trained: Path) -> None:
    (run,) = collect([trained])
    found = attack_images(
        load_model(run), load_images(run, None, progress=False), [3, 0, 3, 7], run.threat, CPU, progress=False
    )
    assert found.index == (0, 3, 7)
    assert float((found.x_adv - found.x).abs().max()) <= 4 / 255 + 1e-6
    torch.testing.assert_close(found.natural.sum(dim=1), torch.ones(3))


def test_runs_on_the_same_images_share_a_gallery(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    runs = collect([trained, other])
    found = examine(runs, data=None, gallery=True, device=CPU, progress=False)
    ((names, groups),) = found.galleries
    assert names == (runs[0].name, "other")
    assert [group.title for group in groups] == ["The runs disagree", "Fell with every run", "Held with every run"]
    assert groups[0].of == 0 and all(len(exhibit.showings) == 2 for group in groups for exhibit in group.exhibits)


def test_runs_under_different_threat_models_share_none(trained: Path, tmp_path: Path) -> None:
    """On which images they disagree would say which of two attacks was stronger."""
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    result = json.loads((other / "result.json").read_text())
    result["threat_model"] = {"norm": "Linf", "eps": "2/255", "radius": 2 / 255}
    (other / "result.json").write_text(json.dumps(result))
    runs = collect([trained, other])
    found = examine(runs, data=None, gallery=True, device=CPU, progress=False)
    assert [names for names, _ in found.galleries] == [("tiny",), ("other",)]
    gallery = check(render(runs, found, "autolora report")).section("gallery")
    assert [head.text for head in gallery.all("h3", class_="name")] == [
        "tiny attacked under Linf 4/255",
        "other attacked under Linf 2/255",
    ]
    assert "under the threat model of their run" in gallery.text


def test_one_image_of_each_class_comes_before_a_second(tmp_path: Path) -> None:
    (run,) = collect([write_run(tmp_path / "a", 60, 30)])
    chosen = choose([run])
    assert run.verdicts is not None and {total for total, _ in chosen.values()} == {30}
    for title, (_, places) in chosen.items():
        assert np.bincount(run.verdicts.label[places]).tolist() == [2, 2, 2]
        assert all(run.verdicts.right["pgd-10"][places] == (title == "Held against it"))
    assert choose([run]) == chosen


def test_the_page_shows_the_gallery(examined: tuple[CollectedRun, Examination]) -> None:
    run, found = examined
    page: Page = check(render([run], found, "autolora report"))
    images = page.section("gallery").all("img")
    assert len(images) == 3 * sum(len(group.exhibits) for group in found.galleries[0][1])
    assert len(page.section("classes").all("table", class_="matrix")) == 2
