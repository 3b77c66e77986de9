"""Plugins: a user's file becomes methods once, gets one line if it is wrong, and leaves nothing if it fails."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autolora import finetune
from autolora.errors import InputError
from autolora.experiments import plugins
from autolora.experiments.config import RunConfig, read_yaml
from autolora.experiments.ingredients import build_method
from autolora.experiments.plugins import load_plugin
from autolora.experiments.run import run
from autolora.methods import METHODS
from autolora.threat import ThreatModel

# a dataclass with annotations as text looks for its module by name
SOURCE = '''from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from autolora import Batch, Method, RobustModel, register

with (Path(__file__).parent / "ran.txt").open("a") as file:
    file.write("once\\n")


@register("mine")
@dataclass
class Mine(Method):
    """Adversarial training, weighted."""

    kind: ClassVar[str] = "a plugin"
    paper = "nobody"
    weight: float = 1.0

    def loss(self, model: RobustModel, batch: Batch) -> dict[str, Tensor]:
        return {"weighted": self.weight * F.cross_entropy(model(batch.x_adv).float(), batch.y)}
'''
CLASS = "from autolora import METHODS, Method, register\n"  # one line, for short plugins
TINY: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "image_size": 12, "epochs": 1, "attack": "pgd-1"}
TINY |= {"batch_size": 10, "device": "cpu", "precision": "fp32", "progress": False}


@pytest.fixture(autouse=True)
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin as a new process does, and leave no method behind."""
    monkeypatch.setattr(plugins, "_LOADED", {})
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)
    for name in plugin_modules():
        del sys.modules[name]


def plugin_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("autolora_plugin_")]


def written(folder: Path, source: str = SOURCE, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)
    return folder / name


def test_its_methods_are_methods(tmp_path: Path) -> None:
    assert load_plugin(written(tmp_path)) == ("mine",)
    method = build_method(RunConfig("x", method="mine", method_options={"weight": 2}), ThreatModel("8/255"))
    assert type(method) is METHODS["mine"]
    assert method.summary() == "Adversarial training, weighted."
    assert getattr(method, "weight") == 2  # noqa: B009 - the class is not known here
    with pytest.raises(InputError, match="method mine: weight='two' is not a number"):
        build_method(RunConfig("x", method="mine", method_options={"weight": "two"}), ThreatModel("8/255"))


def test_a_method_can_be_pickled(tmp_path: Path) -> None:
    load_plugin(written(tmp_path))
    method = build_method(RunConfig("x", method="mine"), ThreatModel("8/255"))
    assert pickle.loads(pickle.dumps(method)) == method


def test_a_file_runs_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path)
    (tmp_path / "link.py").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    for name in (file, str(file), "mine.py", Path("./mine.py"), "link.py"):
        assert load_plugin(name) == ("mine",)
    assert (tmp_path / "ran.txt").read_text() == "once\n"
    assert len(plugin_modules()) == 1


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b", SOURCE.replace('"mine"', '"other"'))
    assert (load_plugin(first), load_plugin(second)) == (("mine",), ("other",))
    assert METHODS["mine"].__module__ != METHODS["other"].__module__
    method = build_method(RunConfig("x", method="mine"), ThreatModel("8/255"))
    assert type(pickle.loads(pickle.dumps(method))) is METHODS["mine"]


def test_all_of_its_methods_are_named(tmp_path: Path) -> None:
    both = SOURCE.replace('@register("mine")', '@register("mine")\n@register("mine-too")')
    assert load_plugin(written(tmp_path, both)) == ("mine-too", "mine")


def test_it_leaves_nothing_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = list(sys.path)
    load_plugin(written(tmp_path))
    assert {entry.name for entry in tmp_path.iterdir()} == {"mine.py", "ran.txt"}  # its own doing
    assert sys.path == path


def test_it_is_said_that_code_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path, "raise RuntimeError")
    with caplog.at_level(logging.INFO, "autolora"), pytest.raises(InputError):
        load_plugin(file)
    assert caplog.messages == [f"plugin: running the code in {file.resolve()}; it can do whatever you can"]


# what can be wrong with it


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_plugin("nowhere/mine.py")
    assert str(caught.value).startswith("plugin nowhere/mine.py: there is no such file; ")
    assert str(caught.value).endswith(f"from the folder where the command runs, {tmp_path}")


def test_a_folder_and_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "method.py").mkdir()
    with pytest.raises(InputError, match=r"method\.py is a folder; name a Python file"):
        load_plugin(tmp_path / "method.py")
    with pytest.raises(InputError, match=r"mine\.txt is not a Python file; name one that ends in \.py"):
        load_plugin(written(tmp_path, name="mine.txt"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\nvalue = = 1\n", "plugin {}, line 2, fails while it is imported: SyntaxError: invalid syntax"),
        ("\n\nunknown\n", "plugin {}, line 3, fails while it is imported: NameError: name 'unknown' is not defined"),
        ("import nowhere_at_all\n", "plugin {}, line 1, fails while it is imported: ModuleNotFoundError: No module"),
        ("import json\n\njson.loads('{{')\n", "plugin {}, line 3, fails while it is imported: JSONDecodeError: "),
        ("def f():\n    1 / 0\n\n\nf()\n", "plugin {}, line 2, fails while it is imported: ZeroDivisionError: "),
        ("raise ValueError('a\\nb')\n", "plugin {}, line 1, fails while it is imported: ValueError: a b"),
        ("assert False\n", "plugin {}, line 1, fails while it is imported: AssertionError"),
        ("import sys\n\nsys.exit(3)\n", "plugin {}, line 3, ends the program while it is imported; put what only"),
        ("x = 1\n", 'plugin {} registers no method; put @autolora.register("NAME") above its class of autolora.Method'),
        (
            f"{CLASS}register('at')(type('A', (Method,), {{}}))\n",
            "plugin {}, line 2, fails while it is imported: ValueError: method 'at' is registered already, by AT; take",
        ),
        (f"{CLASS}METHODS['at'] = METHODS['ft']\n", "plugin {} replaces the method 'at'; register yours under a name"),
        (f"{CLASS}METHODS.pop('at')\nMETHODS['b'] = METHODS['ft']\n", "plugin {} replaces the method 'at'; "),
        (f"{CLASS}register('a')(type('A', (Method,), {{}}))\n", "plugin {}: 'a' cannot train; a method is a class of"),
        (f"{CLASS}register('a')(type('A', (), {{}}))\n", "plugin {}: 'a' cannot train; a method is a class of"),
        (f"{CLASS}register('a')(lambda pgd: None)\n", "plugin {}: 'a' cannot train; a method is a class of"),
    ],
)
def test_a_mistake_in_it_gets_one_line(tmp_path: Path, source: str, message: str) -> None:
    file = written(tmp_path, source)
    with pytest.raises(InputError) as caught:
        load_plugin(file)
    assert str(caught.value).startswith(message.format(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"x = '\xff'\n")
    with pytest.raises(InputError, match=r"mine\.py.* fails while it is imported: SyntaxError: "):
        load_plugin(tmp_path / "mine.py")


@pytest.mark.parametrize("end", ["raise RuntimeError", "raise KeyboardInterrupt", "METHODS['at'] = METHODS['ft']"])
def test_what_failed_leaves_nothing_and_can_be_mended(tmp_path: Path, end: str) -> None:
    before = dict(METHODS)
    with pytest.raises(KeyboardInterrupt if "Keyboard" in end else InputError):
        load_plugin(written(tmp_path, f"{SOURCE}\n{CLASS}{end}\n"))
    assert before == METHODS
    assert plugin_modules() == []
    assert load_plugin(written(tmp_path)) == ("mine",)


def test_a_change_after_it_ran_is_not_passed_over(tmp_path: Path) -> None:
    load_plugin(written(tmp_path))
    changed = written(tmp_path, SOURCE.replace("1.0", "2.0"))  # as many bytes, in the same second
    with pytest.raises(InputError, match=r"mine\.py has changed since this process imported it; start a new process"):
        load_plugin(changed)
    written(tmp_path)
    assert load_plugin(changed) == ("mine",)


def test_what_a_file_was_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytecode of an earlier version, of as many bytes and of the same second, would be taken for it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = written(tmp_path)
    stamp = file.stat().st_mtime_ns
    load_plugin(file)
    monkeypatch.setattr(plugins, "_LOADED", {})  # another process
    METHODS.pop("mine")
    os.utime(written(tmp_path, SOURCE.replace('"mine"', '"nine"')), ns=(stamp, stamp))
    assert load_plugin(file) == ("nine",)


# in a run


def test_two_runs_in_one_process(photos: Path, tmp_path: Path) -> None:
    """The second is the first, from its own configuration."""
    file = written(tmp_path / "code")
    options: dict[str, Any] = {"plugin": file, "method_options": {"weight": 2.0}}
    first = finetune(photos, method="mine", **options, out=str(tmp_path / "first"), **TINY)
    assert first.content["config"]["plugin"] == str(file)
    stored = read_yaml(first.folder / "config.yaml")
    assert (stored.plugin, stored.method_options) == (str(file), {"weight": 2.0})
    second = run(dataclasses.replace(stored, out=str(tmp_path / "second")), progress=False)
    assert second.scores == first.scores
    assert (tmp_path / "code" / "ran.txt").read_text() == "once\n"


def test_nothing_is_written_when_the_plugin_fails(photos: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "code", "1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        finetune(photos, method="mine", plugin=file, out=str(tmp_path / "run"), **TINY)
    assert {entry.name for entry in tmp_path.iterdir()} == {"code"}


def test_without_the_plugin_its_method_is_unknown(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method 'mine' is unknown"):
        finetune(photos, method="mine", out=str(tmp_path / "run"), **TINY)
