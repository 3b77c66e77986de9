"""Shards: whole or not there, continued only under the same circumstances, divided without gaps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autolora.errors import InputError
from autolora.evaluation.shards import Shard, Shards


def shard(count: int, first: int = 0) -> Shard:
    rows = torch.arange(first, first + count)
    return Shard(rows % 3, rows % 5, rows % 4 - 1, torch.rand(int((rows % 4 > 1).sum()), 3, 4, 4))


@given(total=st.integers(1, 50), size=st.integers(1, 60), processes=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_every_image_is_in_one_shard_and_every_shard_is_one_processes(total: int, size: int, processes: int) -> None:
    shards = Shards(Path("nowhere"), total, size)
    assert [row for number in range(len(shards)) for row in shards.rows(number)] == list(range(total))
    shares = [list(shards.missing(rank, processes)) for rank in range(processes)]
    assert sorted(number for share in shares for number in share) == list(range(len(shards)))


def test_what_is_written_is_read_and_no_longer_missing(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "a", total=7, size=3)
    shards.open({"seed": 0})
    assert list(shards.missing()) == [0, 1, 2]
    written = shard(3, first=3)
    shards.write(1, written)
    read = shards.read(1)
    assert read is not None and all(torch.equal(a, b) for a, b in zip(read, written, strict=True))
    assert list(shards.missing()) == [0, 2]


def test_the_verdicts_of_all_shards_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    shards = Shards(tmp_path, total=7, size=3)
    shards.open({})
    for number in (2, 0, 1):
        shards.write(number, shard(len(shards.rows(number)), first=3 * number))
    whole, expected = shards.together(), shard(7)
    assert all(torch.equal(a, b) for a, b in zip(whole[:3], expected[:3], strict=True))


def test_verdicts_are_not_put_together_before_all_are_there(tmp_path: Path) -> None:
    shards = Shards(tmp_path, total=6, size=3)
    shards.open({})
    shards.write(0, shard(3))
    with pytest.raises(ValueError, match="1 of 2 shards are missing"):
        shards.together()


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_shard_that_is_not_whole_is_judged_again(tmp_path: Path, damage: bytes | None) -> None:
    shards = Shards(tmp_path, total=3, size=3)
    shards.open({})
    shards.write(0, shard(3))
    path = tmp_path / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    assert shards.read(0) is None and list(shards.missing()) == [0]


def test_a_shard_of_another_size_does_not_count(tmp_path: Path) -> None:
    shards = Shards(tmp_path, total=3, size=3)
    shards.open({})
    shards.write(0, shard(2))
    assert shards.read(0) is None


def test_shards_are_continued_under_the_same_circumstances_alone(tmp_path: Path) -> None:
    Shards(tmp_path, total=7, size=3).open({"model": "abc", "classes": ["a", "b"]})
    Shards(tmp_path, total=7, size=3).open({"model": "abc", "classes": ["a", "b"]})
    for total, size, model in ((7, 3, "xyz"), (8, 3, "abc"), (7, 4, "abc")):
        with pytest.raises(InputError, match="cannot be continued"):
            Shards(tmp_path, total, size).open({"model": model, "classes": ["a", "b"]})
