"""One process at a time on a run folder: a file that names the owner, and a lock on it that dies with the owner."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from autolora.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: there the file alone says that a run is going on
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
_HELD: set[Path] = set()  # by this process, whose own locks the system does not count as taken


class Owner(NamedTuple):
    """Who works on a run folder."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def owner(folder: Path) -> Owner | None:
    """Return the process that works on a run folder; None if there is none, or it has died.

    The lock on the file tells, which ends with its process, however that ends. Where the file system knows no locks,
    the process is looked for if it is of this host, and believed in if it is of another.
    """
    path = folder / LOCK
    if path.resolve() in _HELD:
        return Owner(os.getpid(), socket.gethostname())
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # no file, or one that is not ours to open
        named = _named(path)
        return named if _alive(named) else None
    try:
        return _named(path) if _taken(descriptor, path) else None
    finally:
        os.close(descriptor)


def check_free(folder: Path) -> None:
    """Refuse a run folder that a process works on, before anything slow begins.

    Raises:
        RunError: If one does.
    """
    if (by := owner(folder)) is not None:
        raise _refused(folder, by)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Return a context in which this process alone works on a run folder, which is made if need be.

    A folder that is empty in the end is removed.

    Raises:
        RunError: If another process works on it; the message names it.
        OSError: If the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _take(path)
    _HELD.add(path.resolve())
    try:
        yield
    finally:
        _HELD.discard(path.resolve())
        with suppress(OSError):  # the folder is not empty, as a rule
            path.unlink()
            folder.rmdir()
        os.close(descriptor)


def _refused(folder: Path, by: Owner | None) -> RunError:
    """Return the error for a folder that is in use."""
    elsewhere = by is not None and by.host != socket.gethostname()
    gone = f"; if that process has ended, delete {folder / LOCK}" if elsewhere else ""
    return RunError(
        f"{folder} is in use by {by or 'another process'}; wait for it, or name another folder with --out{gone}"
    )


def _take(path: Path) -> int:
    """Open the file and lock it, and make sure that it is still the one in the folder."""
    while True:
        if path.resolve() in _HELD:
            raise _refused(path.parent, Owner(os.getpid(), socket.gethostname()))
        found = path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if _taken(descriptor, path):
            named = _named(path)
            os.close(descriptor)
            raise _refused(path.parent, named)
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            break
        os.close(descriptor)  # its owner removed it in between
    if found:
        logger.info(f"{path.parent}: the process that worked here before has died; going on in its place")
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(Owner(os.getpid(), socket.gethostname())._asdict()).encode(), 0)
    return descriptor


def _taken(descriptor: int, path: Path) -> bool:
    """Say whether another process has the lock; this one has it else."""
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return True
        return _alive(_named(path))
    return False


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOLCK, "no locks on this system")
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by the processes that load images


def _named(path: Path) -> Owner | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Owner(int(content["pid"]), str(content["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _alive(named: Owner | None) -> bool:
    if named is None:
        return False
    if named.host != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(named.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
