from pathlib import Path

import pytest

from autolora.data.archives import list_archive
from autolora.data.checks import check
from autolora.data.folders import list_folder
from autolora.data.layout import Tree, arrange
from autolora.errors import InputError

from .trees import pack_zip, write


def tree_of(path: Path, *files: str) -> Tree:
    return arrange(list_folder(write(path / "data", dict.fromkeys(files, b""))))


def shape(tree: Tree) -> dict[str, dict[str, int]]:
    return {split: {name: len(files) for name, files in classes.items()} for split, classes in tree.splits.items()}


def two(*folders: str) -> list[str]:
    return [f"{folder}/{i}.png" for folder in folders for i in range(3)]


def test_class_folders_alone(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, *two("dogs", "cats"), "cats/more/x.JPG")
    assert shape(tree) == {"train": {"cats": 4, "dogs": 3}}
    assert tree.notes == ()


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_all_three_splits(tmp_path: Path, val: str) -> None:
    tree = tree_of(tmp_path, *two("train/a", "train/b", f"{val}/a", f"{val}/b", "test/a", "test/b"))
    assert shape(tree) == {split: {"a": 3, "b": 3} for split in ("train", "val", "test")}


def test_val_without_test_is_the_test_split(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, *two("train/a", "train/b", "val/a", "val/b"))
    assert set(tree.splits) == {"train", "test"}
    assert "val/ is the test split" in tree.notes[0]


def test_one_wrapping_folder_is_looked_through(tmp_path: Path) -> None:
    for inner in (two("train/a", "train/b", "test/a", "test/b"), two("a", "b")):
        wrapped = {f"wrapper/{name}": b"" for name in inner} | {"__MACOSX/wrapper/._x.png": b"", "README.txt": b""}
        tree = arrange(list_archive(pack_zip(tmp_path / f"{len(inner)}.zip", wrapped)))
        assert tree.train.keys() == {"a", "b"}
        assert tree.train["a"][0].parts == tuple(inner[0].split("/"))


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    assert shape(tree_of(tmp_path, *two("car", "train"))) == {"train": {"car": 3, "train": 3}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            two("training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"),
            "rename .* train/ and test/,",
        ),
        (two(*(f"seg_{split}/seg_{split}/a" for split in ("train", "test")), "seg_pred/seg_pred"), "rename them to"),
        (two("trainset/a", "Validation Images/a", "test 2017/a"), "rename them to train/ and val/ and test/"),
        (two("train", "test1"), "images of train/ lie in no class folders"),
        (two("train", "test"), "images of train/ lie in no class folders"),
    ],
)
def test_what_look_like_splits_are_no_classes(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        tree_of(tmp_path, *files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [("test 1", "test 2"), ("contest", "training"), ("training_set", "cats")])
def test_classes_may_be_called_a_little_like_splits(tmp_path: Path, classes: tuple[str, str]) -> None:
    assert tree_of(tmp_path, *two(*classes)).train.keys() == set(classes)


def test_other_files_and_folders_are_counted(tmp_path: Path) -> None:
    tree = tree_of(
        tmp_path, *two("train/a", "train/b"), "labels.csv", "a.txt", ".DS_Store", "test/7.png", "train/loose.png"
    )
    assert shape(tree) == {"train": {"a": 3, "b": 3}}
    assert tree.notes[0] == "ignored 3 files that are no images (.csv: 1, .txt: 1, hidden: 1)"
    assert "1 images that lie in train/" in tree.notes[1]
    assert tree.notes[2].startswith("test is not used")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty"),
        (["a/x.txt", "b/y.csv"], "holds no images"),
        (["x.png", "y.png"], "no class folders"),
        (two("test/a", "test/b"), "no train/"),
        (two("train/a", "train/b", "val/a", "valid/a"), "both val/ and valid/"),
        (two("a"), "one class only"),
        (["a/0.png", *two("b")], "class 'a' .* one image .* at least 3 .*training and validation and test"),
        (["train/a/0.png", *two("train/b", "test/a", "test/b")], "class 'a' .* one image .* at least 2"),
        (two("train/a", "train/b", "test/a", "test/c"), "test lacks 'b' and train lacks 'c'"),
        (two("train/a", "train/b", "val/a", "test/a", "test/b"), "val lacks 'b'"),
    ],
)
def test_bad_data_are_refused_in_one_line(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=message) as error:
        check(tree_of(tmp_path, *files))
    assert str(tmp_path / "data") in str(error.value) and "\n" not in str(error.value)


def test_an_empty_class_folder_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "data" / "c").mkdir(parents=True)
    with pytest.raises(InputError, match="no image of class 'c'"):
        check(tree_of(tmp_path, *two("a", "b")))


def test_only_some_classes_in_a_given_order(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, *two("train/cat", "train/dog", "train/emu", "test/cat", "test/dog"))
    assert list(tree.only(["dog", "cat"]).train) == ["dog", "cat"]
    check(tree.only(["dog", "cat"]))  # the class that test lacks is not asked for
    with pytest.raises(InputError, match="no class 'dgo'; did you mean 'dog'"):
        tree.only(["dgo", "cat"])
    with pytest.raises(InputError, match="twice"):
        tree.only(["dog", "dog"])
