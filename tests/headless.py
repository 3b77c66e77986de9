"""A browser for tests that look at pages: the one on the path, or Debian's, which is installed if that is asked for.

``AUTOLORA_BROWSER=install`` asks. Whatever keeps it from being there, a machine that is no Debian or a mirror that does
not answer, is the reason that those tests are skipped with, and never an error.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ASKED = "AUTOLORA_BROWSER"
PACKAGE, DRIVER = "chromium", "playwright"
SECONDS = 300  # for one step of the installation


class Absent(Exception):
    """There is no browser; the message says why, and what to do."""


def chromium() -> str:
    """Return the path of a browser that Playwright's core package, which is then there too, can drive.

    Raises:
        Absent: If there is none.
    """
    if find_spec(DRIVER) is None:
        _install_if_asked(DRIVER, f"pip install {DRIVER}", [_python_package()])
        importlib.invalidate_caches()
    if (found := shutil.which(PACKAGE)) is None:
        _install_if_asked(PACKAGE, f"apt-get install {PACKAGE}", _debian_package())
        found = shutil.which(PACKAGE)
    if found is None or find_spec(DRIVER) is None:
        raise Absent(f"{PACKAGE} or {DRIVER} was installed and cannot be found")
    return found


def _install_if_asked(name: str, by_hand: str, commands: Sequence[Sequence[str]]) -> None:
    if os.environ.get(ASKED) != "install":
        raise Absent(f"no {name}: {by_hand}, or let the tests do it: {ASKED}=install")
    with _alone():
        if shutil.which(name) is None:  # nobody has done it meanwhile
            for command in commands:
                _run(command)


def _run(command: Sequence[str]) -> None:
    """Run a command to its end.

    Raises:
        Absent: If it is not there, fails, or takes too long.
    """
    said = f"{ASKED}=install: {' '.join(command)}"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{said} did not work ({error})") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise Absent(f"{said} ended with {done.returncode} ({lines[-1]})")


def _python_package() -> list[str]:
    """Return how to install the driver into this environment, which may have been made without pip."""
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--python", sys.executable, DRIVER]
    return [sys.executable, "-m", "pip", "install", DRIVER]


def _debian_package() -> list[list[str]]:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"]
    return [[*apt, "update"], [*apt, "install", "--no-install-recommends", PACKAGE]]


@contextmanager
def _alone() -> Iterator[None]:
    """Let one of several test processes install; the others wait, and then find it installed or try themselves."""
    with Path(tempfile.gettempdir(), "autolora-browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
