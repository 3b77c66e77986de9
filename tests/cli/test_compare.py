"""``autolora compare`` as it is typed: tables, files, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autolora.cli import run

TINY = ["--model", "resnet20_cifar", "--weights", "none", "--image-size", "12", "--epochs", "1", "--attack", "pgd-1"]
TINY += ["--batch-size", "10", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: str, method: str, natural: int, robust: int, seed: int = 0, eps: int = 8, total: int = 40) -> str:
    """Write a run folder whose model is right on the first images."""
    columns = {"natural": natural, "pgd-10": robust}
    content: dict[str, Any] = {
        "config": {"data": "photos/", "method": method, "seed": seed, "out": folder, "eps": f"{eps}/255"},
        "data": {"classes": ["ant", "bee"], "fingerprint": "5" * 64, "notes": [], "majority": 0.55},
        "threat_model": {"norm": "Linf", "eps": f"{eps}/255", "radius": eps / 255},
        "scores": {name: {"accuracy": n / total, "correct": n, "total": total} for name, n in columns.items()},
    }
    path = Path(folder)
    (path / "evaluation").mkdir(parents=True)
    (path / "result.json").write_text(json.dumps(content))
    lines = ["index,label,predicted,natural,pgd-10"]
    lines += [f"{i},{int(i >= total // 2)},0,{int(i < natural)},{int(i < robust)}" for i in range(total)]
    (path / "evaluation/verdicts.csv").write_text("\n".join(lines) + "\n")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run(["compare", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def cells(lines: Sequence[str], start: str) -> list[str]:
    """Return the cells of the line that begins so."""
    line = next(line for line in lines if line.strip().startswith(start))
    return [cell.strip() for cell in line.strip().split("   ") if cell.strip()]


def test_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write("a", "autolora", 36, 24), write("b", "at", 30, 12)
    out = printed(capsys, a, b)
    lines = out.splitlines()
    assert "Test accuracy on 40 images, threat model Linf 8/255:" in lines
    assert cells(lines, "autolora  ")[:3] == ["autolora", "0", "90.0%  [76.9, 96.0]"]
    assert cells(lines, "at  ")[2:] == ["75.0%  [59.8, 85.8]", "30.0%  [18.1, 45.4]"]
    assert cells(lines, "always the commonest class")[1:] == ["55.0%", "55.0%"]
    assert "autolora against at, which differ in method (autolora, at):" in lines
    tests = lines[lines.index("autolora against at, which differ in method (autolora, at):") :]
    assert cells(tests, "difference")[1:] == ["only autolora right", "only at right", "exact McNemar"]
    assert cells(tests, "under PGD-10 (RA)")[1:] == ["+30.0  [17.5, 45.0]", "12", "0", "p = 0.00049"]
    assert cells(tests, "natural (SA)")[2:] == ["6", "0", "p = 0.031"]
    assert (
        "Under pgd-10 autolora is better than at by 30.0 points (95 % [17.5, 45.0], exact McNemar p = 0.00049)."
        in lines
    )
    assert not any(line.endswith(" ") for line in lines)


def test_the_columns_stand_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, write("a", "autolora", 36, 24), write("b", "twins-trades", 40, 2))
    rows = [line for line in out.splitlines() if "%  [" in line]
    assert len(rows) == 2
    assert len({line.index("%  [") for line in rows}) == len({line.rindex("%  [") for line in rows}) == 1


def test_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    a = [write(f"a{seed}", "autolora", 36, n, seed) for seed, n in ((0, 24), (6, 28), (66, 26))]
    b = [write(f"b{seed}", "at", 36, n, seed) for seed, n in ((0, 12), (6, 14), (66, 16))]
    lines = printed(capsys, *a, *b).splitlines()
    assert cells(lines, "autolora  ") == ["autolora", "0, 6, 66", "90.0%  ± 0.0", "65.0%  ± 5.0"]
    tests = lines[next(index for index, line in enumerate(lines) if line.startswith("autolora against at")) :]
    assert cells(tests, "difference")[1:] == ["Welch", "paired by seed"]
    # 12 images apart, standard error sqrt(4 / 3 + 4 / 3), df 4; pairs 12, 14, 10, standard error 2 / sqrt(3), df 2
    assert cells(tests, "under PGD-10 (RA)")[2:] == ["p = 0.0018", "p = 0.0091"]
    assert cells(tests, "natural (SA)")[1:] == ["-", "-", "-"]
    by_seed = tests[next(index for index, line in enumerate(tests) if line.strip().startswith("seed")) :]
    rows = [line.split() for line in by_seed if line.strip().startswith("under PGD-10 (RA)")]
    assert [row[3:6] for row in rows] == [["0", "12", "0"], ["6", "14", "0"], ["66", "10", "0"]]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = write("a", "autolora", 36, 24), write("b", "at", 30, 12), write("c", "ft", 40, 20)
    content = json.loads(printed(capsys, a, b, c, "--json", "--quiet", "--out", "deep/comparison.json"))
    assert json.loads(Path("deep/comparison.json").read_text()) == content
    assert content["verdict"].startswith("Under pgd-10 autolora is better than at by 30.0 points")
    assert content["data"] == {"fingerprint": "5" * 64, "test": 40}
    assert [group["name"] for group in content["groups"]] == ["autolora", "at", "ft"]
    assert content["groups"][0]["folders"] == ["a"]
    assert content["groups"][0]["scores"]["natural"]["mean"] == 0.9
    found = content["comparisons"][0]
    assert (found["first"], found["other"], found["decided_by"]) == ("autolora", "at", "exact McNemar")
    assert found["differ_in"] == {"method": ["autolora", "at"]}
    robust = found["metrics"]["pgd-10"]
    assert robust["difference"] == pytest.approx(0.3)
    assert (robust["p"], robust["p_holm"]) == pytest.approx((2 / 2**12, 4 / 2**12))
    assert (robust["welch"], robust["paired"]) == (None, None)
    assert content["comparisons"][1]["metrics"]["pgd-10"]["p_holm"] == pytest.approx(2 / 2**4)
    assert [(m["seeds"], m["only_first"], m["only_second"]) for m in robust["mcnemar"]] == [([0, 0], 12, 0)]


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    a = [write(f"a{seed}", "autolora", 36, n, seed) for seed, n in ((0, 24), (6, 28))]
    b = [write(f"b{seed}", "at", 36, n, seed) for seed, n in ((0, 12), (6, 14))]
    assert printed(capsys, *a, *b, "--out", "c.csv", "--quiet", "--metric", "pgd-10") == ""
    with Path("c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["seeds"], row["metric"]) for row in rows] == [
        ("autolora", "0 6", "pgd-10"),
        ("at", "0 6", "pgd-10"),
    ]
    assert [float(row["mean"]) for row in rows] == pytest.approx([0.65, 0.325])
    assert rows[0]["first_minus_this"] == rows[0]["p"] == rows[0]["ci95_low"] == ""
    assert float(rows[1]["first_minus_this"]) == pytest.approx(0.325)
    assert rows[1]["test"] == "Welch"
    assert float(rows[1]["difference_low"]) < 0.325 < float(rows[1]["difference_high"])


def test_three_runs(capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = write("a", "autolora", 36, 24), write("b", "at", 30, 12), write("c", "ft", 40, 20)
    out = printed(capsys, a, b, c, "--out", "c.csv")
    last = [cells(part.splitlines(), "under PGD-10 (RA)")[-1] for part in out.split(" against ")[1:3]]
    assert last == ["p = 0.00098", "p = 0.12"]  # after Holm
    with Path("c.csv").open(newline="") as file:
        rows = {(row["group"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    for group, robust, p, holm in (("at", 12, 2 / 2**12, 4 / 2**12), ("ft", 20, 2 / 2**4, 2 / 2**4)):
        row = rows[group, "pgd-10"]
        assert float(row["first_minus_this"]) == pytest.approx((24 - robust) / 40)
        assert (float(row["p"]), float(row["p_holm"])) == pytest.approx((p, holm))
    assert float(rows["ft", "natural"]["ci95_low"]) == pytest.approx(40 / (40 + 1.959964**2))  # Wilson's, all right


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, write("a", "autolora", 36, 24), write("b", "at", 30, 12), "--out", "c.md")
    text = Path("c.md").read_text(encoding="utf-8")
    assert "|  | seeds | natural (SA) | under PGD-10 (RA) |\n| --- | --- | --- | --- |\n| autolora | 0 | 90.0%" in text
    verdict = next(line for line in out.splitlines() if line.startswith("Under pgd-10"))
    assert f"\n{verdict}\n" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {5, 6}  # two tables, each of one width


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("compare", "no run given; a comparison takes two run folders or more"),
        ("compare a", "1 run given; a comparison takes two run folders or more"),
        ("compare a nowhere", "nowhere has no result.json; give the folder of a finished run, as --out named it"),
        ("compare a c", "a and c have different threat models (Linf 8/255 and Linf 12/255); a robust accuracy says"),
        ("compare a b --metric pgd-9", "metric 'pgd-9' cannot be compared: no run has such a score; all runs have nat"),
        ("compare a b --out c.txt", "--out c.txt has '.txt'; a comparison is written as .json, .md, .csv"),
        ("compare a b --out c", "--out c has no suffix; a comparison is written as .json, .md, .csv"),
        ("compare a b --out d.md", "--out d.md is a folder; name a file"),
        ("compare a b --metrik natural", "option --metrik is unknown; did you mean --metric? (see autolora compare --"),
    ],
)
def test_a_mistake_gets_one_line(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("a", "autolora", 36, 24)
    write("b", "at", 30, 12)
    write("c", "at", 30, 12, eps=12)
    Path("d.md").mkdir()
    assert run(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"autolora: {line}")
    assert len(err.splitlines()) == 1
    assert {path.name for path in Path().iterdir()} == {"a", "b", "c", "d.md"}


def test_runs_of_the_package(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What ``fit`` writes is what ``compare`` reads."""
    assert run(["fit", str(photos), *TINY, "--method", "ft", "--out", "ft"]) == 0
    result = json.loads(Path("ft/result.json").read_text())
    shutil.copytree("ft", "at")
    Path("at/result.json").write_text(json.dumps({**result, "config": {**result["config"], "method": "at"}}))
    content = json.loads(printed(capsys, "ft", "at", "--json"))
    for group in content["groups"]:
        assert group["scores"].keys() == result["scores"].keys()
        for name, score in group["scores"].items():
            assert score["mean"] == result["scores"][name]["accuracy"]
            assert score["ci95"] == pytest.approx(result["scores"][name]["ci95"], abs=1e-6)
    assert content["comparisons"][0]["differ_in"] == {"method": ["ft", "at"]}
    assert all(found["p"] == 1 for found in content["comparisons"][0]["metrics"].values())
