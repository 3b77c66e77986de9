"""The package as a whole: every module imports, the public names are there, and help does not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pkgutil import walk_packages

import pytest

import autolora

MODULES = [module.name for module in walk_packages(autolora.__path__, "autolora.")]
PUBLIC = [
    *("RobustModel", "ThreatModel", "PGD"),
    *("METHODS", "Method", "Batch", "register"),
    *("finetune", "load", "InputError"),
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    assert import_module(name).__doc__


def test_every_module_is_found() -> None:
    sources = [path for path in files("autolora").rglob("*.py")]  # type: ignore[attr-defined]
    assert len(MODULES) + 1 == len(sources)  # a folder without __init__.py would be left out of a wheel, or of this


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    assert getattr(autolora, name).__doc__
    assert name in autolora.__all__
    assert name in dir(autolora)


def test_public_names_are_the_objects_themselves() -> None:
    from autolora.attacks import PGD
    from autolora.methods import METHODS, Method
    from autolora.models import RobustModel

    assert (autolora.PGD, autolora.METHODS, autolora.RobustModel) == (PGD, METHODS, RobustModel)
    assert all(issubclass(method, Method) for method in METHODS.values())


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="'autolora' has no attribute 'Pgd'"):
        _ = autolora.Pgd


def test_methods_of_this_version_are_registered_without_further_imports() -> None:
    code = "import autolora; print(*autolora.METHODS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert {"ft", "at", "autolora"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import autolora",
        "from autolora.cli import run; run(['--help'])",
        "from autolora.cli import run; run(['fit', '--help'])",
        "from autolora.cli import run; run(['--version'])",
        "from autolora.cli import run; run(['fit', 'digits', '--epochs', 'x'])",
        "from autolora.experiments.result import RunResult",
    ],
)
def test_no_torch_where_none_is_needed(code: str) -> None:
    heavy = "import sys; sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'sklearn', 'scipy')))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{heavy}"], capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_types_are_shipped() -> None:
    assert files("autolora").joinpath("py.typed").is_file()
