"""Pickles read as data: against Python's own reader on harmless ones, and refused otherwise."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolora.data.pickled import bytes_array, read_data
from autolora.pickles import Damaged, Refused

from .layouts import python2_pickle, rows

BATCH: dict[str, Any] = {
    "labels": [3, 0, 255, 70000, -1],
    "filenames": ["a.png", "b" * 300],
    "data": rows(0, 5, 12),
    "empty": [],
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_batch_of_python_3_is_read(protocol: int) -> None:
    found = read_data(pickle.dumps(BATCH, protocol))
    assert np.array_equal(bytes_array(found.pop("data")), BATCH["data"])
    assert found == {key: value for key, value in BATCH.items() if key != "data"}


def test_a_batch_of_python_2_is_read_as_python_reads_it() -> None:
    data = python2_pickle(BATCH)
    assert {op.name for op, _, _ in pickletools.genops(data)} >= {"SHORT_BINSTRING", "BINSTRING", "GLOBAL", "BUILD"}
    reference = pickle.loads(data, encoding="latin1")
    found = read_data(data)
    assert np.array_equal(bytes_array(found.pop("data")), reference.pop("data")) and found == reference


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(plain, st.integers(0, 4))
def test_plain_data_are_what_they_were(value: Any, protocol: int) -> None:
    assert read_data(pickle.dumps(value, protocol)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.just(python2_pickle(BATCH)), st.data())
def test_bytes_that_are_anything_are_refused_or_damaged_at_most(data: bytes, draw: st.DataObject) -> None:
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 4)) if mutated else 0):
        mutated[draw.draw(st.integers(0, len(mutated) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = read_data(bytes(mutated))
        bytes_array(found.get("data") if isinstance(found, dict) else found)
    except (Refused, Damaged, ValueError) as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "numpy.ndarray"),
    ],
)
def test_what_asks_for_more_than_data_is_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(Refused, match=named.replace(".", r"\.")):
        read_data(data)


def test_what_refers_to_another_file_is_damaged() -> None:
    with pytest.raises(Damaged, match="outside of the file"):
        read_data(b"Pid\n.")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # remember the top at place 2,147,483,647
        b"\x80\x02" + b"]q\x00" + b"(h\x00h\x00e" * 500 + b".",  # a list that holds itself
        b"\x80\x04" + b"\x8c\x01a" + b"\x85" * 100_000 + b"\x8c\x01b\x93.",  # a name that is a very deep tuple
        b"\x80\x02]q\x00"
        + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
        + b"U\x01x\x93.",  # 2^60 leaves
    ],
)
def test_small_files_do_not_take_for_ever(data: bytes) -> None:
    began = time.perf_counter()
    with contextlib.suppress(Damaged, Refused):
        read_data(data)
    assert time.perf_counter() - began < 5


def array_state(shape: Any, kind: bytes = b"U\x02u1", data: bytes = b"U\x04abcd", fortran: bytes = b"\x89") -> bytes:
    """A pickle of an array, part by part."""
    dtype = b"cnumpy\ndtype\n(" + kind + b"K\x00K\x01tR"
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + python2_pickle(shape)[2:-1] + dtype + fortran + data + b"tb."
    )  # fmt: skip


def test_arrays() -> None:
    assert bytes_array(read_data(array_state((2, 2)))).tolist() == [[97, 98], [99, 100]]
    for bad in (
        array_state((2, 3)),
        array_state((10**15,)),
        array_state("x"),
        array_state((2, 2), kind=b"U\x01O"),
        array_state((2, 2), kind=b"]"),
        array_state((2, 2), fortran=b"\x88"),
        array_state((2, 2), data=b"J\xff\xff\xff\x7f"),  # bytes(2147483647) would be 2 GiB
        array_state((2, 2), data=b"c_codecs\nencode\n)R"),
    ):
        with pytest.raises(ValueError, match="not sound"):
            bytes_array(read_data(bad))
    for other in (
        None,
        [1],
        read_data(b"cnumpy\ndtype\n)R."),
        read_data(b"cnumpy.core.multiarray\n_reconstruct\n)R."),
    ):
        with pytest.raises(ValueError, match="no array"):
            bytes_array(other)
