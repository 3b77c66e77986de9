"""A table of paths and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolora.data import Splits, load_splits
from autolora.errors import InputError

from .trees import pictures, write

FILES = pictures({"cats": 8, "dogs": 8})


def load(root: Path, text: str | bytes, name: str = "table.csv") -> Splits:
    write(root, {**FILES, name: text if isinstance(text, bytes) else text.encode()})
    return load_splits(root / name, image_size=8, progress=False)


def lines(*header: str, split: bool = False) -> list[str]:
    rows = []
    for index, path in enumerate(FILES):
        part = ("train", "train", "train", "test")[index % 4]
        rows.append(f"{path},{path.split('/')[0]}" + f",{part}" * split)
    return [*header, *rows]


def test_a_table_without_splits(tmp_path: Path) -> None:
    splits = load(tmp_path, "\n".join(lines("path,label")))
    assert splits.classes == ("cats", "dogs")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [10, 3, 3]
    folder = load_splits(write(tmp_path / "same", FILES), image_size=8, progress=False)
    assert [name.split("/")[-2:] for name in splits.test.names] == [name.split("/")[-2:] for name in folder.test.names]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,  # from Excel
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("path,label,split", " Path , LABEL , Split "),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("path,label,split", "path,label,split,size").replace(",train\n", ",training,3\n"),
        lambda text: "\n".join(f'"{line.split(",")[0]}",{line.split(",", 1)[1]}' for line in text.splitlines()),
    ],
)
def test_a_table_with_splits(change: object, tmp_path: Path) -> None:
    assert callable(change)
    splits = load(tmp_path, change("\n".join(lines("path,label,split", split=True)) + "\n"))
    assert len(splits.train) + len(splits.val) == 12 and len(splits.test) == 4
    assert all(f"/{splits.classes[y]}/" in name for name, y in zip(splits.test.names, splits.test.labels, strict=True))
    assert {name[-7:] for name in splits.test.names} == {"003.png", "007.png"}


def test_paths_may_be_absolute_and_lead_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "images", FILES)
    absolute = [
        line.replace("cats/", f"{tmp_path}/images/cats/").replace("dogs/", "../images/dogs/") for line in lines()
    ]
    write(tmp_path / "here", {"t.csv": "\n".join(["path,label", *absolute]).encode()})
    assert len(load_splits(tmp_path / "here/t.csv", image_size=8, progress=False).train) == 10


def test_one_file_by_two_paths_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table by a relative path, as it is typed: its image would be trained and tested on."""
    write(tmp_path, pictures({"cats": 3, "dogs": 3}))
    monkeypatch.chdir(tmp_path)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.rglob("*.png"))]
    Path("table.csv").write_text("\n".join(["path,label", *rows, f"{tmp_path / rows[0]}"]))
    with pytest.raises(InputError, match=r"line 8: .* is in line 2 already"):
        load_splits("table.csv", image_size=8, progress=False)


def test_a_label_may_differ_from_the_folder(tmp_path: Path) -> None:
    text = "\n".join(["path,label", *(f"{path},{'odd' if int(path[-5]) % 2 else 'even'}" for path in FILES)])
    splits = load(tmp_path, text)
    assert splits.classes == ("even", "odd")
    assert all(int(name[-5]) % 2 == label for name, label in zip(splits.train.names, splits.train.labels, strict=True))


HEAD, SPLIT_HEAD = "path,label", "path,label,split"
MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", r"has no columns 'path' in its first line \(empty\)"),
    "no header": ("\n".join(lines()), "has no columns 'path' in its first line"),
    "no label": ("path\na.png", "has no columns 'label'"),
    "two labels": ("path,label,label\n", "has 2 columns 'label'"),
    "semicolons": ("path;label\ncats/000.png;cats", "has no columns 'path'"),
    "no lines": (HEAD, "has no lines below its header"),
    "missing file": ("\n".join([*lines(HEAD), "cats/999.png,cats"]), r"line 18: there is no file cats/999\.png"),
    "a folder": ("\n".join([*lines(HEAD), "cats,cats"]), "line 18: there is no file cats;"),
    "no class": ("\n".join([*lines(HEAD), "cats/000.png,"]), "line 18: the column label is empty"),
    "no path": ("\n".join([*lines(HEAD), " ,cats"]), "line 18: the column path is empty"),
    "short line": ("\n".join([*lines(HEAD), "cats/000.png"]), "line 18: the column label is empty"),
    "twice": ("\n".join([*lines(HEAD), "cats/../cats/000.png,cats"]), r"line 18: cats/\.\./cats/000\.png is .*line 2"),
    "two classes": ("\n".join([*lines(HEAD), "cats/000.png,dogs"]), r"line 18: cats/000\.png is .*line 2"),
    "split": ("\n".join([*lines(SPLIT_HEAD, split=True), "x,cats,holdout"]), "line 18: the split 'holdout' is unknown"),
    "no split": (
        "\n".join([*lines(SPLIT_HEAD, split=True), "cats/000.png,cats,"]),
        "line 18: the column split is empty",
    ),
    "test only": ("path,label,split\ncats/000.png,cats,test", "has the splits test, and none to train on"),
    "no image": ("\n".join([*lines(HEAD), "table.csv,cats"]), r"table\.csv cannot be read as an image"),
    "latin-1": ("\n".join(lines(HEAD)).replace("dogs", "h\xf6nd").encode("latin-1"), "cannot be read as a table"),
    "nul": ("\n".join([*lines(HEAD), "cats/\0.png,cats"]), "line 18: the column path is empty or no text|as a table"),
    "line break": ("\n".join([*lines(HEAD), '"a\nb\x1b.png",cats']), r"there is no file a\\nb\\x1b\.png"),
    "endless": ("path,label\n" + "x" * 200_000, "cannot be read as a table .*field"),
    "one class": ("\n".join([HEAD, "cats/000.png,cats", "cats/001.png,cats"]), r"one class only \('cats'\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_table_is_named(mistake: str, tmp_path: Path) -> None:
    text, message = MISTAKES[mistake]
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value) and "table.csv" in str(error.value)
