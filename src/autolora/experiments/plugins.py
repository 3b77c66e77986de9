"""Plugins: a Python file of the user's that registers methods, imported when a run names it."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isabstract
from pathlib import Path
from types import CodeType

from autolora.errors import InputError
from autolora.methods import METHODS, Method

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    digest: str
    names: tuple[str, ...]


_LOADED: dict[Path, _Loaded] = {}  # by resolved path: a file runs once in a process, however often it is named


def load_plugin(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Import a Python file as a module of its own, and return the names of the methods that it registers.

    This runs the user's own code with all that the user may do; the log says so. A file is imported once in a process.
    An import that fails leaves nothing behind, neither methods nor module, so that a mended file can be named again.

    Args:
        path: The file; a relative path counts from the working directory.

    Raises:
        InputError: If there is no such Python file, its import fails, it registers no method or takes a name that is
            taken, or it has changed since this process imported it.
    """
    file = _python_file(path)
    digest = _digest(file, path)
    if file in _LOADED:
        if _LOADED[file].digest != digest:
            raise InputError(f"plugin {path} has changed since this process imported it; start a new process")
        return _LOADED[file].names
    logger.info(f"plugin: running the code in {file}; it can do whatever you can")
    before = dict(METHODS)
    try:
        _execute(file, path)
        names = _registered(before, path)
    except BaseException:
        METHODS.clear()
        METHODS.update(before)
        sys.modules.pop(_module_name(file), None)
        raise
    logger.info(f"plugin: it registered {', '.join(names)}")
    _LOADED[file] = _Loaded(digest, names)
    return names


def plugin_fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a plugin as it was when this process imported it.

    Raises:
        KeyError: If it has not imported it.
    """
    return _LOADED[Path(path).resolve()].digest


class _FreshLoader(SourceFileLoader):
    """Compiles the file as it stands: bytecode of an earlier version is not read, and none is left beside it."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled file."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _python_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.is_dir():
        raise InputError(f"plugin {path} is a folder; name a Python file")
    if not file.exists():
        raise InputError(
            f"plugin {path}: there is no such file; a path counts from the folder where the command runs, {Path.cwd()}"
        )
    if file.suffix != ".py":
        raise InputError(f"plugin {path} is not a Python file; name one that ends in .py")
    return file.resolve()


def _digest(file: Path, path: str | os.PathLike[str]) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"plugin {path} cannot be read: {error.strerror}; mend its permissions") from error


def _module_name(file: Path) -> str:
    """Return a name that no other file has, the same in every process: dataclasses and pickle find a class by it."""
    return f"autolora_plugin_{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}_{file.stem}"


def _execute(file: Path, path: str | os.PathLike[str]) -> None:
    name = _module_name(file)
    spec = spec_from_file_location(name, file, loader=_FreshLoader(name, str(file)))
    assert spec is not None and spec.loader is not None  # a loader was given
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise InputError(
            f"plugin {path}{_line(error, file)} ends the program while it is imported; "
            'put what only a script does under if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise InputError(f"plugin {path}{_line(error, file)} fails while it is imported: {_says(error)}") from error


def _line(error: BaseException, file: Path) -> str:
    """Return where in the plugin it went wrong: the innermost line of that file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if not lines and isinstance(error, SyntaxError):  # it did not get as far as running
        lines = [error.lineno]
    return f", line {lines[-1]}," if lines and lines[-1] else ""


def _says(error: Exception) -> str:
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _registered(before: dict[str, type[Method]], path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the new names, once each stands for a class that can train and no old one stands for another."""
    if taken := [name for name, method in before.items() if METHODS.get(name) is not method]:
        raise InputError(f"plugin {path} replaces the method {taken[0]!r}; register yours under a name of its own")
    names = tuple(name for name in METHODS if name not in before)
    if not names:
        raise InputError(
            f'plugin {path} registers no method; put @autolora.register("NAME") above its class of autolora.Method'
        )
    for name in names:
        method: object = METHODS[name]
        if not (isinstance(method, type) and issubclass(method, Method)) or isabstract(method):
            raise InputError(
                f"plugin {path}: {name!r} cannot train; a method is a class of autolora.Method with a loss of its own"
            )
    return names
