"""The page as a reader gets it: well-formed, complete, the same numbers as in the files, and deaf to hostile names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from autolora.experiments.selection import LABEL
from autolora.report.collected import collect
from autolora.report.examination import examine
from autolora.report.page import render

from .folders import CLASSES, write_evaluation, write_history, write_run
from .pages import EXPECTED, Page, rows

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></style></svg><b onclick=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{2}$ &amp; %s {0}",
    "\u202egnp.exe\u2066",
    "\ufffe\x00\x1b[31m\udcff",
    "צפרדע ضفدع 青蛙",
    "w" * 5000,
    "line\nbreak",
)
HINT = re.compile(r"autolora \w+ .*")


def page_of(folders: Sequence[Path], **options: bool) -> str:
    runs = collect(folders)
    device = torch.device("cpu")
    found = examine(runs, data=None, gallery=options.get("gallery", False), device=device, progress=False)
    return render(runs, found, "autolora report")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything but a model: AutoAttack, a curve, corruptions."""
    folder = write_run(tmp_path_factory.mktemp("run") / "a")
    write_evaluation(folder, "autoattack", {"natural": 48, "autoattack": 24})
    curve = [
        {"eps": eps, "scores": {"natural": _score(48), "pgd-20": _score(right)}}
        for eps, right in (("8/255", 27), ("2/255", 40), ("16/255", 9))
    ]
    write_evaluation(folder, "curve", {"natural": 48, "pgd-20": 27}, label="pgd-20", curve=curve)
    accuracy = {str(severity): 0.8 - 0.1 * severity for severity in range(1, 6)}
    types = {
        "fog": {"mean_accuracy": 0.5, "accuracy": accuracy},
        "gaussian_noise": {"mean_accuracy": 0.25, "accuracy": {}},
    }
    corruptions = {"mean_accuracy": 0.375, "total": 60, "constants": "CIFAR-10-C", "types": types}
    write_evaluation(folder, "corruptions", {"natural": 48, "pgd-5": 33}, label="pgd-5", corruptions=corruptions)
    return folder


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    """The report of that run."""
    return page_of([run])


def _score(correct: int, total: int = 60) -> dict[str, object]:
    return {"accuracy": correct / total, "correct": correct, "total": total}


def check(text: str) -> Page:
    """Check what holds for every page, whatever is on it."""
    page = Page(text)
    elements = page.root.all()
    assert {element.tag for element in elements} <= EXPECTED
    names = [element.attributes["id"] for element in elements if "id" in element.attributes]
    assert len(names) == len(set(names))
    for element in elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href"):
                assert value.startswith("data:image/") or (value.startswith("#") and value[1:] in names), value
            if name == "aria-labelledby":
                assert set(value.split()) <= set(names)
            for target in re.findall(r"url\(([^)]*)\)", value):
                assert target.startswith("#") and target[1:] in names
    assert not re.search(r"url\(|@import", page.root.all("style")[0].text)
    assert "http://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "") and "https://" not in text
    text.encode("utf-8")
    assert all(image.attributes["alt"] for image in page.root.all("img"))
    return page


def drawings(text: str) -> list[ElementTree.Element]:
    """Return every plot, read as XML."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg xmlns.*?</svg>", text, re.DOTALL)]


def test_it_is_well_formed_and_loads_nothing(text: str) -> None:
    page = check(text)
    (policy,) = page.root.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none'; ")
    assert "script" not in policy.attributes["content"]
    assert [section.attributes["id"] for section in page.root.all("section")] == [
        *("scores", "training", "radii", "classes", "corruptions", "gallery", "cost", "repeat", "reading")
    ]
    assert len(text) < 500_000


def test_the_scores_are_those_of_the_result(run: Path, text: str) -> None:
    page = check(text)
    (table,) = page.root.all("table", class_="scores")
    found = {row[0]: row[1] for row in rows(table)}
    for name, title in (("natural", "natural images (SA)"), ("pgd-10", "PGD-10 (RA)")):
        entry = json.loads((run / "result.json").read_text())["scores"][name]
        low, high = (100 * bound for bound in entry["ci95"])
        assert found[title].startswith(f"{100 * entry['accuracy']:.1f}% ")
        assert f"[{low:.1f}, {high:.1f}]" in found[title]
        assert f"{entry['correct']} of {entry['total']} images" in found[title]
    assert found["AutoAttack (AA)"].startswith("40.0% ")
    assert "AA-adapted (K=3)" in found["AutoAttack (AA)"]
    assert "left standing after apgd-ce 50.0%, apgd-t 40.0%" in found["AutoAttack (AA)"]
    assert found["a constant answer: always the commonest class"].startswith("33.3%")


def test_an_upper_bound_is_called_one(text: str) -> None:
    (table,) = Page(text).root.all("table", class_="scores")
    marked = {row[0]: "upper bound" in row[1] for row in rows(table)}
    assert marked["PGD-10 (RA)"] and marked["PGD-20 (RA)"]
    assert not marked["natural images (SA)"] and not marked["AutoAttack (AA)"]


def test_the_finding_is_about_the_strongest_attack_on_all_images(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_evaluation(folder, "autoattack-fast", {"natural": 10, "autoattack-fast": 9}, total=12, label="AA-fast")
    result = json.loads((folder / "result.json").read_text())  # as the quickstart leaves it: the sample's score too
    result["scores"]["autoattack-fast"] = {**_score(9, 12), "label": "AA-fast"}
    (folder / "result.json").write_text(json.dumps(result))
    page = Page(page_of([folder]))
    (finding,) = page.root.all("p", class_="finding")
    assert "right on 80.0% [68.2, 88.2] of 60 natural test images; 50.0% [37.7, 62.3] are still right under PGD-10" in (
        finding.text
    )
    assert "left 75.0% [46.8, 91.1] of a sample of 12, an upper bound too" in finding.text
    *_, sampled, _ = rows(page.root.all("table", class_="scores")[0])
    assert sampled[1].startswith("75.0% upper bound sample ")
    assert "a sample, of which 83.3% are right without an attack" in sampled[1]


@pytest.mark.parametrize(("robust", "said"), [(15, True), (20, True), (21, False)])
def test_a_model_that_a_constant_outdoes_is_not_called_robust(robust: int, said: bool, tmp_path: Path) -> None:
    """The commonest class has a third of the 60 images."""
    (finding,) = Page(page_of([write_run(tmp_path / "a", robust=robust)])).root.all("p", class_="finding")
    sentence = "Always answering the commonest class would be right on 33.3%: this is not robust yet."
    assert (sentence in finding.text) == said


def test_doubts_come_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    path = write_evaluation(folder, "autoattack", {"natural": 48, "autoattack": 24}) / "evaluation.json"
    content = json.loads(path.read_text())
    flag = {"name": "zero-gradients", "message": "attacks are <blind>", "count": 7, "total": 32}
    content["scores"]["autoattack"]["flags"] = [flag]
    path.write_text(json.dumps(content))
    scores = check(page_of([folder])).section("scores")
    (warning,) = scores.all("div", class_="warning")
    assert "zero-gradients (a, AutoAttack (AA) Linf 8/255): 7 of 32 images: attacks are <blind>" in warning.text
    assert [row[0] for row in rows(scores.all("table", class_="scores")[0]) if "doubtful" in row[1]] == [
        "AutoAttack (AA)"
    ]


def test_the_plots_are_xml_and_coloured_by_the_page(text: str) -> None:
    plots = drawings(text)
    titles = [plot[0].text for plot in plots]
    assert titles == [
        *("Accuracy on validation images", "Learning rate", "Loss weights", "Loss terms"),
        *("Accuracy against eps (Linf)", "Accuracy on each class"),
    ]
    for plot in plots:
        assert plot[1].tag.endswith("desc") and plot[1].text
        assert plot.get("role") == "img" and "width" not in plot.attrib
        for style in (element.get("style", "") for element in plot.iter()):
            for colour in re.findall(r"(?:fill|stroke): ([^;]+)", style):
                assert colour in ("none", "currentColor") or colour.startswith("var(--"), style
    tables = Page(text).section("training").all("table")
    assert rows(tables[0])[0] == ["epoch", "natural validation images (SA)", "validation images under PGD-10 (RA)"]
    assert rows(tables[0])[2] == ["2", "54.0%", "32.0%"]
    assert rows(tables[3])[0] == ["epoch", "natural", "consistency"]


def test_the_learning_rate_says_where_it_fell(text: str) -> None:
    (figure,) = [f for f in Page(text).root.all("figure") if f.all("h3")[0].text == "Learning rate"]
    assert "before epoch 4." in figure.text


def test_the_curve_has_the_natural_accuracy_at_0(text: str) -> None:
    (table,) = Page(text).section("radii").all("table")
    assert [(row[0], row[1].split()[0]) for row in rows(table)[1:]] == [
        ("0", "80.0%"),
        ("2", "66.7%"),
        ("8", "45.0%"),
        ("16", "15.0%"),
    ]


def test_corruptions_are_tabled_by_severity(text: str) -> None:
    (table,) = Page(text).section("corruptions").all("table")
    assert rows(table)[0] == ["", "1", "2", "3", "4", "5", "mean"]
    assert rows(table)[1] == ["no corruption", "", "", "", "", "", "80.0%"]
    assert rows(table)[2] == ["fog", "70.0%", "60.0%", "50.0%", "40.0%", "30.0%", "50.0%"]
    assert rows(table)[3] == ["gaussian noise", "", "", "", "", "", "25.0%"]


def test_the_same_files_give_the_same_page(run: Path, text: str) -> None:
    assert page_of([run]) == text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "a<b>&'\"",
        classes=[*HOSTILE, "last"],
        total=66,
        config={"data": HOSTILE[0], "model": HOSTILE[1], "method": HOSTILE[2], "plugin": HOSTILE[4]},
        environment={HOSTILE[0]: HOSTILE[1], "device": HOSTILE[2]},
    )
    result = json.loads((folder / "result.json").read_text())
    result["data"]["notes"] = list(HOSTILE)
    result["scores"][HOSTILE[1]] = _score(20, 66)
    (folder / "result.json").write_text(json.dumps(result))
    write_history(folder, terms=dict.fromkeys(HOSTILE, 1.0))
    write_evaluation(folder, "x<y>", {"natural": 48, "pgd-20": 27}, total=66, label=HOSTILE[0], classes=11)
    text = page_of([folder])
    page = check(text)
    whole = page.root.text
    assert "<script>alert(1)</script>" in whole and "{{ 7 * 7 }}{% raw %}" in whole
    assert "\\u202egnp.exe\\u2066" in whole and "\\ufffe\\x00\\x1b[31m\\udcff" in whole
    assert "צפרדע ضفدع 青蛙" in whole
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f\ufffe\ud800-\udfff]", text)
    assert not page.root.all("script") and not [b for b in page.root.all("b") if b.attributes]
    assert len(drawings(text)) == 5
    for plot in drawings(text):
        assert all(len(element.text or "") < 40 for element in plot.iter() if element.tag.endswith("}text"))


def test_a_run_that_was_interrupted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a b")
    (folder / "result.json").unlink()
    write_history(folder, epochs=3)
    page = check(page_of([folder], gallery=True))
    scores = page.section("scores")
    assert "3 of 6 epochs are done, and no test image was looked at" in scores.text
    assert not scores.all("table", class_="scores")
    assert f"autolora fit --config '{folder}/config.yaml' --resume" in scores.text
    assert len(page.section("training").all("figure")) == 4
    assert "no finished model" in page.section("gallery").text


def test_a_run_before_its_first_epoch(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").unlink()
    page = check(page_of([folder]))
    assert "No finished epoch is recorded" in page.section("training").text
    assert "0 of 6 epochs are done" in page.section("scores").text


def test_a_run_that_nobody_evaluated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", scores={})
    (folder / "evaluation/verdicts.csv").unlink()
    page = check(page_of([folder], gallery=True))
    assert "No accuracy on natural test images is recorded" in page.section("scores").text
    assert "verdicts.csv is missing" in page.section("scores").text
    assert "There are no verdicts on test images yet" not in page.section("scores").text
    for section in ("scores", "training", "radii", "corruptions"):
        commands = [line.text for line in page.section(section).all("code", class_="line")]
        assert len(commands) == 1 and HINT.fullmatch(commands[0])
    assert "no model in it" in page.section("gallery").text


def test_what_contradicts_itself_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    path = write_evaluation(folder, "autoattack", {"natural": 48, "autoattack": 24}) / "verdicts.csv"
    path.write_text(path.read_text().replace(",1,1\n", ",1,0\n", 1))
    (warning,) = check(page_of([folder])).section("scores").all("div", class_="warning")
    assert "counts 24 of 60 images right under autoattack" in warning.text and "23 of 60" in warning.text


def test_three_runs_stand_side_by_side(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", 48, 30),
        write_run(tmp_path / "b", 54, 12, config={"method": "ft"}),
        write_run(tmp_path / "c", 51, 33, config={"method": "at"}),
    ]
    page = check(page_of(folders))
    (table,) = page.root.all("table", class_="scores")
    cells = rows(table)
    assert cells[0] == ["", "a", "b", "c"]
    assert [cell.split()[0] for cell in cells[1][1:]] == ["80.0%", "90.0%", "85.0%"]
    assert [cell.split()[0] for cell in cells[2][1:]] == ["50.0%", "20.0%", "55.0%"]
    assert "autolora is better than ft by 30.0 points" in page.section("scores").text
    differing = rows(page.section("disagreements").all("table")[0])
    assert differing[0][3:] == ["both right", "only the first", "only the other", "neither"]
    assert ["PGD-10 (RA)", "a", "b", "12", "18", "0", "30"] in differing
    assert ["natural images (SA)", "a", "c", "48", "0", "3", "9"] in differing
    titles = [figure.all("h3")[0].text for figure in page.section("training").all("figure")]
    assert {"Loss terms of a", "Loss terms of b", "Loss terms of c", "Loss weight lambda1"} <= set(titles)
    assert "method" in [row[0] for row in rows(page.section("repeat").all("table")[0])]


def test_an_attack_on_a_sample_is_compared_on_the_sample(tmp_path: Path) -> None:
    """As the quickstart does it: all images under PGD, 20 of them under the first attacks of AutoAttack."""
    runs = [write_run(tmp_path / "a", config={"method": "at"}), write_run(tmp_path / "b", robust=20)]
    for run, right in zip(runs, (15, 5), strict=True):
        write_evaluation(run, "autoattack-fast", {"natural": 18, "autoattack-fast": right}, total=20)
    text = " ".join(Page(page_of(runs)).section("scores").text.split())
    said = "On a sample of 20 images under the first attacks of AutoAttack (AA-fast), at is still right on 10 that "
    said += f"autolora loses, and autolora on 0 that at loses (exact McNemar p = {2 * 0.5**10:.2g})."
    assert said in text
    assert "left out" not in text

    result = runs[0] / "result.json"  # one of them says nothing about it, image by image
    content = json.loads(result.read_text())
    content["scores"]["autoattack-fast"] = {"correct": 15, "total": 20, "accuracy": 0.75}
    result.write_text(json.dumps(content))
    (runs[0] / "evaluation" / "autoattack-fast" / "evaluation.json").unlink()
    text = " ".join(Page(page_of(runs)).section("scores").text.split())
    assert f"left out: {runs[0]} was tried on a sample of 20 images, and all 60 are compared" in text


def test_p_values_of_samples_are_adjusted(tmp_path: Path) -> None:
    """Ten images against none and six against none: p = 2 / 2^10 and 2 / 2^6; Holm: times 2 and 1."""
    runs = [write_run(tmp_path / method, config={"method": method}) for method in ("at", "ft", "loft")]
    for run, right in zip(runs, (15, 5, 9), strict=True):
        write_evaluation(run, "autoattack-fast", {"natural": 18, "autoattack-fast": right}, total=20)
    text = " ".join(Page(page_of(runs)).section("scores").text.split())
    for count, other, p in ((10, "ft", 2 * 2 / 2**10), (6, "loft", 2 / 2**6)):
        assert f"at is still right on {count} that {other} loses, and {other} on 0 that at loses" in text
        assert f"(exact McNemar p = {p:.2g} after Holm for 2 comparisons)." in text


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    other = {"norm": "Linf", "eps": "4/255", "radius": 4 / 255}
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", threat_model=other, config={"eps": "4/255"})]
    page = check(page_of(folders))
    assert "These runs cannot be compared" in page.section("scores").text
    assert "different threat models" in page.section("scores").text
    leads = [lead.text for lead in page.root.all("p", class_="lead")]
    assert [lead.split(". ")[0] for lead in leads] == ["Threat model of a", "Threat model of b"]
    assert "at most 8/255" in leads[0] and "at most 4/255" in leads[1]


def runs_under_two_threat_models(root: Path) -> list[Path]:
    """Two runs at 8/255 and one at 2/255, all on the same images."""
    weak = {"norm": "Linf", "eps": "2/255", "radius": 2 / 255}
    return [
        write_run(root / "a", robust=30),
        write_run(root / "b", robust=20, config={"method": "at"}),
        write_run(root / "c", robust=45, config={"eps": "2/255"}, threat_model=weak),
    ]


def test_attacks_under_different_threat_models_are_not_counted_against_each_other(tmp_path: Path) -> None:
    section = check(page_of(runs_under_two_threat_models(tmp_path))).section("disagreements")
    _, *found = rows(section.all("table")[0])
    assert [row[:3] for row in found] == [
        ["natural images (SA)", "a", "b"],
        ["PGD-10 (RA), Linf 8/255", "a", "b"],
        ["natural images (SA)", "a", "c"],
        ["natural images (SA)", "b", "c"],
    ]
    assert found[1][3:] == ["20", "10", "0", "30"]
    assert "Runs under different threat models are compared on natural images alone." in section.text
    assert "are shown above" not in section.text  # there is no gallery


def test_attacks_of_one_name_and_two_labels_are_not_counted_against_each_other(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, config={"method": name}) for name in ("at", "ft")]
    for folder, label in zip(folders, ("AA (standard)", "AA-adapted (K=3)"), strict=True):
        write_evaluation(folder, "aa", {"natural": 9, "autoattack": 4}, total=12, label=label)
    page = check(page_of(folders))
    attacks = [row[0] for row in rows(page.section("disagreements").all("table")[0])[1:]]
    assert attacks == ["natural images (SA)", "PGD-10 (RA)"]
    assert "On a sample of 12 images" not in page.section("scores").text


def test_attacked_numbers_say_their_threat_model_where_there_are_two(tmp_path: Path) -> None:
    folders = runs_under_two_threat_models(tmp_path)
    page = check(page_of(folders))
    (scores,) = page.root.all("table", class_="scores")
    threats = ["Linf 8/255", "Linf 8/255", "Linf 2/255"]
    _, natural, attacked, _ = rows(scores)
    assert all(threat in cell for cell, threat in zip(attacked[1:], threats, strict=True))
    assert not any("Linf" in cell for cell in natural)
    titles = {figure.all("h3")[0].text: figure for figure in page.root.all("figure")}
    for title in ("Test accuracies with their intervals", "Accuracy on validation images under PGD-10 (RA)"):
        keys = [key.text for key in titles[title].all("ul", class_="legend")[0].all("li")]
        assert keys == [f"{name}, attacked under {threat}" for name, threat in zip("abc", threats, strict=True)]
    numbers = rows(titles["Test accuracies with their intervals"].all("table")[0])
    assert ["c", "PGD-10 (RA), Linf 2/255"] in [row[:2] for row in numbers]
    assert [head.text for head in page.section("classes").all("h3", class_="name")] == [
        f"{name} attacked under {threat}" for name, threat in zip("abc", threats, strict=True)
    ]
    assert "attacked under" not in page_of(folders[:2])


def test_a_run_that_was_selected_on_test_images_says_so_beside_its_numbers(tmp_path: Path) -> None:
    notes = {"notes": [f"data: {LABEL}"]}
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", config={"method": "at"})]
    content = json.loads((folders[1] / "result.json").read_text())
    content["data"] |= notes
    (folders[1] / "result.json").write_text(json.dumps(content))
    page = check(page_of(folders))
    for row in rows(page.root.all("table", class_="scores")[0])[1:3]:
        assert ["selected on test images" in cell for cell in row[1:]] == [False, True]
    assert "Runs of at had their epoch selected on the test images themselves" in page.section("scores").text
    alone = check(page_of(folders[1:])).root.all("table", class_="scores")[0]
    assert all("selected on test images" in row[1] for row in rows(alone)[:2])


def test_many_classes_are_not_all_drawn(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(40)]
    page = check(page_of([write_run(tmp_path / "a", 300, 200, total=400, classes=names)]))
    section = page.section("classes")
    labels = [text.text for text in section.all("text") if text.text.startswith("class ")]
    assert len(labels) == 30
    assert len(rows(section.all("table")[0])) == 41
    assert [len(row) for row in rows(section.all("table")[1])] == [4] * 21


def test_classes_are_counted_as_the_verdicts_say(text: str) -> None:
    plot, matrix = Page(text).section("classes").all("table")
    assert rows(plot)[0] == [
        *("class", "natural images (SA)", "95 % interval", "right"),
        *("PGD-10 (RA)", "95 % interval", "right"),
    ]
    assert [rows(plot)[1][place] for place in (0, 1, 3, 4, 6)] == ["ant", "80.0%", "16 of 20", "50.0%", "10 of 20"]
    assert rows(matrix)[1:] == [
        ["ant", "80", "20", "", "20"],
        ["bee", "", "80", "20", "20"],
        ["moth", "20", "", "80", "20"],
    ]
    assert [row[0] for row in rows(matrix)[1:]] == list(CLASSES)
