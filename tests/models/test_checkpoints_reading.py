"""Files of weights against torch's own reader, against malice in every container, and against noise."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from autolora.errors import InputError
from autolora.models.checkpoints import load_checkpoint
from autolora.models.checkpoints.contents import read_contents
from autolora.models.checkpoints.files import read_file, tensors_in
from autolora.models.checkpoints.sources import architecture_of
from autolora.models.checkpoints.tensors import STORAGES, StoredTensor
from autolora.models.checkpoints.vocabulary import vocabulary
from autolora.models.weights import load_strictly
from autolora.pickles import Damaged, Record, Refused, read_pickle

FORMS = ("zip", "legacy", "pickle")
WEIGHTS = {"conv1.weight": torch.arange(54.0).view(2, 3, 3, 3), "fc.bias": torch.tensor([1.0, -1.0])}


def written(path: Path, content: Any, form: str, pickler: Any = pickle) -> Path:
    """Write a file as torch does, as torch did before 1.6, or as a bare pickle."""
    if form == "pickle":
        path.write_bytes(pickler.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip", pickle_module=pickler)
    return path


# what is read


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of any type and shape, some of them views with gaps, in another order, or not from the start."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(list(STORAGES.values())))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = torch.randint(0, 2, (2, *shape, 3), generator=generator).to(dtype)
    view: Tensor = draw(st.sampled_from([tensor, tensor[1], tensor.transpose(0, -1), tensor[..., ::2], tensor[..., 1]]))
    return view


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), tensors(), max_size=4), st.sampled_from(FORMS))
def test_tensors_are_those_that_torch_reads(tmp_path_factory: Any, state: dict[str, Tensor], form: str) -> None:
    path = written(tmp_path_factory.mktemp("any") / "weights", {"state": state, "epoch": 3}, form)
    ours = read_file(path)
    theirs = torch.load(path, weights_only=True)["state"] if form != "pickle" else state
    read = tensors_in(ours["state"])
    assert ours["epoch"] == 3
    assert list(read) == list(theirs)
    for name, tensor in theirs.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_everything_else_is_what_python_reads(content: Any, protocol: int) -> None:
    assert read_pickle(io.BytesIO(pickle.dumps(content, protocol)), vocabulary()) == content


@pytest.mark.parametrize(
    ("form", "protocol"),
    [("zip", 2), ("zip", 4), ("legacy", 2), ("legacy", 4), ("pickle", 0), ("pickle", 2), ("pickle", 5)],
)
def test_what_training_scripts_leave_in_their_files(tmp_path: Path, form: str, protocol: int) -> None:
    """numpy's numbers and arrays, parsed arguments, paths, ordered dicts with attributes, parameters, types."""
    content = {
        "state": OrderedDict(WEIGHTS),
        "parameter": nn.Parameter(torch.ones(2)),
        "best": np.float64(91.5),
        "array": np.arange(6, dtype=">i4").reshape(2, 3).T,
        "names": np.array(["ant", "bee"]),
        "args": Namespace(lr=0.1, out=Path("x"), device=torch.device("cpu"), dtype=torch.float16, kind=dict),
        "odd": {(1, 2): "a key that no weight has", 7: {"deep", "set"}},
    }
    path = tmp_path / "weights"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip", pickle_protocol=protocol)
    read = read_file(path)
    assert read["best"] == 91.5
    assert torch.equal(tensors_in(read["state"])["conv1.weight"], WEIGHTS["conv1.weight"])
    assert tensors_in(read)["parameter"].tolist() == [1, 1]
    assert read["array"].tensor().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert isinstance(read["args"], Record)
    assert read["args"].state["lr"] == 0.1
    with pytest.raises(Damaged, match="no numbers"):
        read["names"].tensor()


@pytest.mark.parametrize("legacy", [False, True])
def test_dill(tmp_path: Path, legacy: bool) -> None:
    """dill writes types and arrays by functions of its own, which torch refuses."""
    dill = pytest.importorskip("dill")
    content = {"model": WEIGHTS, "type": dict, "array": np.arange(3), "best": np.float64(2)}
    path = written(tmp_path / "weights", content, "legacy" if legacy else "zip", dill)
    with pytest.raises(pickle.UnpicklingError, match="dill"):
        torch.load(path, weights_only=True)
    read = read_file(path)
    assert read["array"].tensor().tolist() == [0, 1, 2]
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in read_contents(path).state.items())


def test_numbers_are_read_when_asked_for_and_once(tmp_path: Path) -> None:
    """The optimizer's share of a checkpoint is not read, and what was saved twice is read once."""
    content = {"a": torch.ones(3), "momentum": torch.ones(1000)}
    content["b"] = content["a"]
    read = read_file(written(tmp_path / "weights", content, "zip"))
    a, b = tensors_in({"a": read["a"], "b": read["b"]}).values()
    assert a.data_ptr() == b.data_ptr()
    assert "content" not in vars(read["momentum"].storage)
    assert "content" in vars(read["a"].storage)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (3,), (1,)),
        (0, (2, 2), (2, 1)),
        (-1, (1,), (1,)),
        (0, (-3,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2,), (9,)),
        (0, (2**30,), (0,)),
        (0, ("2",), (1,)),
        (0, (2**70,), (1,)),
    ],
)
def test_views_beyond_their_numbers(tmp_path: Path, offset: int, shape: Any, strides: Any) -> None:
    read: StoredTensor = read_file(written(tmp_path / "weights", {"a": torch.ones(3)}, "zip"))["a"]
    with pytest.raises(Damaged):
        StoredTensor(read.storage, offset, shape, strides).tensor()


def test_files_are_told_apart_by_their_content(tmp_path: Path) -> None:
    """The name says nothing: ``.pth.tar`` files are no tar archives."""
    torch.save(WEIGHTS, tmp_path / "weights.safetensors")
    save_file(WEIGHTS, tmp_path / "weights.pth.tar")
    for name in ("weights.safetensors", "weights.pth.tar"):
        assert load_checkpoint(tmp_path / name).state.keys() == WEIGHTS.keys()


# malice


class Call:
    """What an attacker pickles: reading it calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def shell(canary: Path) -> str:
    return f"touch {canary}"


ATTACKS: dict[str, tuple[str, Callable[[Path], Any]]] = {  # what the message names, and what is pickled
    "a shell": (f"{os.system.__module__}.system", lambda canary: Call(os.system, shell(canary))),
    "an expression": ("builtins.eval", lambda canary: Call(eval, f"open({str(canary)!r}, 'w')")),
    "a process": ("subprocess.Popen", lambda canary: Call(subprocess.Popen, ["touch", str(canary)])),
    "an attribute": ("builtins.getattr", lambda canary: Call(getattr, Call(__import__, "os"), "system")),
    "torch's own loader": ("torch.serialization.load", lambda canary: Call(torch.load, str(canary))),
    "a whole model": ("torch.nn.modules.linear.Linear", lambda canary: nn.Linear(1, 1)),
}


@pytest.mark.parametrize("place", ["alone", "beside"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_pickle_runs(tmp_path: Path, attack: str, form: str, place: str) -> None:
    canary = tmp_path / "ran"
    named, make = ATTACKS[attack]
    content = make(canary) if place == "alone" else {"state_dict": WEIGHTS, "args": [make(canary)]}
    path = written(tmp_path / "evil.pth", content, form)
    with pytest.raises(InputError, match="refused, since loading it could run code") as caught:
        load_checkpoint(path)
    message = str(caught.value)
    named = "builtins.__import__" if attack == "an attribute" and "__import__" in message else named
    if form != "pickle":  # protocol 2, with the modules' names of Python 2
        named = named.replace("builtins.", "__builtin__.").replace("subprocess.", "commands.")
    assert f"(global {named})" in message
    assert "\n" not in message
    assert not canary.exists()


def test_functions_that_dill_writes_whole(tmp_path: Path) -> None:
    dill = pytest.importorskip("dill")
    canary = tmp_path / "ran"
    path = written(tmp_path / "evil.ckpt", {"model": WEIGHTS, "schedule": lambda step: canary.touch()}, "zip", dill)
    with pytest.raises(InputError, match=r"global dill\._dill\._create_function"):
        load_checkpoint(path)
    loads = tmp_path / "loads.ckpt"
    loads.write_bytes(b"cdill\nloads\n(" + pickle.dumps(dill.dumps(Call(os.system, shell(canary))), 0)[:-1] + b"tR.")
    with pytest.raises(InputError, match=r"global dill\.loads"):
        load_checkpoint(loads)
    assert not canary.exists()


def test_a_file_within_the_file(tmp_path: Path) -> None:
    """A tensor in a bare pickle holds a file of torch's, which torch reads without care."""
    canary, inner = tmp_path / "ran", io.BytesIO()
    torch.save(Call(os.system, shell(canary)), inner, _use_new_zipfile_serialization=False)
    path = written(tmp_path / "evil.pkl", Call(torch.storage._load_from_bytes, inner.getvalue()), "pickle")
    with pytest.raises(InputError, match="system"):
        load_checkpoint(path)
    assert not canary.exists()


INSTRUCTIONS = {  # by hand, since no pickler writes them: each would call os.system, or change what others rely on
    "INST": (b"(S'touch {}'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'touch {}'\no.", "os.system"),
    "NEWOBJ_EX": (b"\x80\x04cos\nsystem\n(S'touch {}'\nt}\x92.", "os.system"),
    "an extension": (b"\x80\x02\x82\x01(S'touch {}'\ntR.", "EXT1"),
    "a name in a name": (b"\x80\x04\x8c\x08builtins\x8c\x0d__import__.os\x93.", "builtins.__import__"),
    "a call of a type": (b"cbuiltins\nobject\n(tR.", "builtins.object"),
    "a buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_that_no_pickler_writes(tmp_path: Path, name: str) -> None:
    program, named = INSTRUCTIONS[name]
    path = tmp_path / "evil.pkl"
    path.write_bytes(program.replace(b"{}", str(tmp_path / "ran").encode()))
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_names_of_a_file_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    """Line breaks, and sequences that a terminal obeys, in the name of a global and in that of a tensor."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x04\x8c\x04evil\x8c\x07\x1b[2J\n\x07x\x93.")
    with pytest.raises(InputError, match=r"global evil\.\?\[2J\?\?x\)"):
        load_checkpoint(path)
    with pytest.raises(InputError, match=r"unexpected: \?\[2J\?x"):
        load_strictly(nn.ReLU(), {"\x1b[2J\nx": torch.ones(1)}, "evil.pth")


@pytest.mark.parametrize(
    "program",
    [
        b"ctorch\nFloatStorage\n}S'__name__'\nS'x'\nsb.",  # attributes for a type
        b"ccollections\nOrderedDict\n(tR}S'__class__'\nNsb]R.",  # a call of what is no name
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)))tR.",  # a tensor of nothing
    ],
)
def test_nothing_changes_outside_of_the_file(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(program)
    with pytest.raises(InputError, match="not a readable"):
        load_checkpoint(path)
    assert torch.FloatStorage.__name__ == "FloatStorage"


def test_no_module_is_imported(tmp_path: Path) -> None:
    """Importing is running: a module that the vocabulary has stays a word too."""
    before = set(sys.modules)
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02}(X\x04\x00\x00\x00argsceasydict\nEasyDict\n)\x81}X\x01\x00\x00\x00aK\x01sbu.")
    read: Any = read_file(path)["args"]
    assert (read.kind, read.state) == ("easydict.EasyDict", {"a": 1})
    path.write_bytes(b"cthis\ns\n.")
    with pytest.raises(Refused, match=r"this\.s"):
        read_file(path)
    assert set(sys.modules) == before


def npz(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, weights=np.array([content], dtype=object))


def npy(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([content], dtype=object))


def object_array(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps({"model": np.array([content], dtype=object)}))


def old_tar(path: Path, content: Any) -> None:
    """torch's archives of 2016."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(content)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def script(path: Path, content: Any) -> None:
    """TorchScript: the same archive as torch's, and code in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(content))
        archive.writestr("net/constants.pkl", pickle.dumps(content))
        archive.writestr("net/code/__torch__.py", "def forward(self): pass")


def header(path: Path, content: Any) -> None:
    """Safetensors, with a pickle where metadata are texts."""
    text = json.dumps({"__metadata__": {"pickle": pickle.dumps(content).decode("latin-1")}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def junk(path: Path, content: Any) -> None:
    """Safetensors, with a pickle where the header is JSON."""
    text = b"{" + pickle.dumps(content)
    path.write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (npz, "not a readable checkpoint .*none of torch's"),
        (npy, "not a readable checkpoint .*a numpy array"),
        (object_array, "refused.*system"),
        (old_tar, "not a readable checkpoint .*tar archive"),
        (script, "refused.*TorchScript"),
        (header, "no tensors in it"),
        (junk, "not a readable safetensors file"),
    ],
)
def test_malice_in_other_containers(tmp_path: Path, write: Callable[[Path, Any], None], message: str) -> None:
    canary, path = tmp_path / "ran", tmp_path / "evil.pth"
    write(path, Call(os.system, shell(canary)))
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_what_is_meant_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of OmegaConf's, as it pickles them: containers of nodes, with types among their attributes."""

    class DictConfig:
        pass

    class AnyNode:
        pass

    for module, kind in (("omegaconf.dictconfig", DictConfig), ("omegaconf.nodes", AnyNode)):
        kind.__module__, kind.__qualname__ = module, kind.__name__
        fake = ModuleType(module)
        monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
        setattr(fake, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, module, fake)
    settings, leaf = DictConfig(), AnyNode()
    leaf.__dict__ |= {"_val": "cifar10", "_metadata": None}
    settings.__dict__ |= {"_content": {"dataset": leaf}, "_metadata": {"ref_type": Any, "object_type": dict}}
    path = written(tmp_path / "weights", {"state_dict": WEIGHTS, "hyper_parameters": settings}, "zip")
    with pytest.raises(pickle.UnpicklingError, match="omegaconf"):
        torch.load(path, weights_only=True)
    assert read_contents(path).state.keys() == WEIGHTS.keys()


# noise


def samples(folder: Path) -> list[bytes]:
    """One file of each kind, with all that training scripts leave in them."""
    content = {"state_dict": WEIGHTS, "args": Namespace(lr=np.float64(0.1)), "array": np.arange(3), "epoch": 3}
    files = [written(folder / form, content, form).read_bytes() for form in FORMS]
    save_file(WEIGHTS, folder / "safetensors")
    with zipfile.ZipFile(io.BytesIO(files[0])) as archive:
        pickled = archive.read("zip/data.pkl")
    return [*files, (folder / "safetensors").read_bytes(), pickled]


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bits that flipped, bytes that changed places, an end that is missing, and nothing but noise."""
    cut = draw(st.none() | st.floats(0, 1))
    edits = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
    noise = draw(st.none() | st.binary(max_size=64))

    def apply(content: bytes) -> bytes:
        if noise is not None and not edits:
            return noise
        changed = bytearray(content)
        for place, value in edits:
            changed[int(place * len(changed))] = value
        return bytes(changed if cut is None else changed[: int(cut * len(changed))])

    return apply


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return samples(tmp_path_factory.mktemp("samples"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 4), change=damage())
def test_noise_is_told_in_one_line(
    tmp_path: Path, originals: list[bytes], which: int, change: Callable[[bytes], bytes]
) -> None:
    """Whatever happened to a file: it is read, or refused with an error of the user's kind. Damage to the pickle of an
    archive is tried inside of it as well, past the checksum."""
    content = change(originals[which])
    path = tmp_path / "noise.pth"
    if which == len(originals) - 1:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("noise/data.pkl", content)
            for key in range(3):
                archive.writestr(f"noise/data/{key}", bytes(8))
    else:
        path.write_bytes(content)
    try:
        if load_checkpoint(path).state:
            architecture_of(str(path), "auto")
    except InputError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10_000_000))
    with pytest.raises(InputError, match="is compressed"):
        load_checkpoint(path)


def test_a_promise_of_many_numbers_takes_no_memory(tmp_path: Path) -> None:
    """Four numbers that call themselves 2^40."""
    whole = written(tmp_path / "weights", {"a": torch.ones(4)}, "zip")
    with zipfile.ZipFile(whole) as archive:
        pickled = archive.read("weights/data.pkl")
    many = b"\x8a\x06" + (2**40).to_bytes(6, "little")  # a long integer in place of a short one
    assert pickled.count(b"K\x04") == 2  # the storage's count, and the shape
    with zipfile.ZipFile(tmp_path / "huge.pth", "w") as archive:
        archive.writestr("huge/data.pkl", pickled.replace(b"K\x04", many))
        archive.writestr("huge/data/0", bytes(16))
    with pytest.raises(InputError, match=f"holds 16 bytes instead of {2**42}"):
        load_checkpoint(tmp_path / "huge.pth")


def test_a_tower_of_containers(tmp_path: Path) -> None:
    path = tmp_path / "tower.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(InputError, match="no tensors in it"):
        load_checkpoint(path)
