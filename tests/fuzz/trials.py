"""Give the command line one input after the other, and see what no input may bring about.

Each is given in a folder of its own, in a process that forks from one that has imported everything: a process that
hangs or crashes is replaced, and the next input gets another.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

import numpy as np
import timm
import torch
from hostile_cases import CANARY, QUICKLY, Case, Material
from PIL import Image
from safetensors.torch import save

from autolora.cli import run

CPU_SECONDS = 20  # after which one input counts as a hang; a run of the material takes one
WALL_SECONDS = 200  # of a process that does not even count its own time
BATCH = 25  # inputs for a process
MINE = re.compile(r"^(out|out\.html|report\.html|runs|exports|evaluations)(/|$)|^run/(report\.html|evaluation/)")
OF_RUN = re.compile(r"^run/")  # a run that is continued
JARGON = re.compile(
    r"Traceback|^autolora: [A-Z]\w*(Error|Exception|Exit|Interrupt|Warning)\b|<class |Namespace\(", re.M
)


class Hang(BaseException):
    """An input has used up its time; no handler of errors may catch that."""


@dataclass(frozen=True)
class Verdict:
    """What one input has brought about.

    Args:
        case: The input.
        code: Exit code.
        said: What was printed on stderr.
        traceback: Whether an error of Python's reached the user, or the process died.
        hang: Whether it took too long.
        outside: Files that were written outside of the output folder, or changed.
        canary: Whether code that came with it ran.
    """

    case: Case
    code: int
    said: str
    traceback: bool = False
    hang: bool = False
    outside: tuple[str, ...] = ()
    canary: bool = False

    @property
    def fine(self) -> bool:
        """Whether nothing has happened that may not."""
        return not (self.traceback or self.hang or self.outside or self.canary)


def make_material(root: Path) -> Material:
    """Make images, a run of LoFT with its adapter and checkpoints, and files of weights, all tiny."""
    photos, rng = root / "photos", np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, colour in {"red": (190, 60, 60), "blue": (60, 60, 190)}.items():
            (photos / split / name).mkdir(parents=True)
            for index in range(count):
                noisy = np.clip(rng.normal(colour, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(photos / split / name / f"{index:02d}.png")
    before = Path.cwd()
    os.chdir(root)
    try:
        options = [*QUICKLY[:-3], "--out", "run", "--quiet", "--method", "loft"]
        assert run(["fit", "photos", *options]) == 0
        assert run(["evaluate", "run", "--attack", "pgd-2", "--device", "cpu", "--quiet"]) == 0
    finally:
        os.chdir(before)
    return Material(photos, root / "run", _encoded(), _weights(), root / CANARY)


def _encoded() -> tuple[bytes, ...]:
    picture = Image.fromarray(np.arange(432, dtype=np.uint8).reshape(12, 12, 3))
    files = []
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"):
        stream = io.BytesIO()
        picture.save(stream, kind)
        files.append(stream.getvalue())
    return tuple(files)


def _weights() -> dict[str, bytes]:
    state = timm.create_model("resnet20_cifar", num_classes=2).state_dict()
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return {"torch": new.getvalue(), "old": old.getvalue(), "safetensors": save(state)}


def tried(cases: Sequence[Case], material: Material, root: Path) -> Iterator[Verdict]:
    """Give the command line every input, and yield what came of it, in order."""
    place = 0
    while place < len(cases):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        batch = cases[place : place + BATCH]
        process = multiprocessing.get_context("fork").Process(target=_work, args=(batch, material, root, theirs))
        process.start()
        theirs.close()
        done = 0
        while done < len(batch) and (verdict := _next(ours, process.sentinel)) is not None:
            yield verdict
            done += 1
        hung = process.is_alive() and done < len(batch)
        process.kill()
        process.join()
        if done < len(batch):  # it was killed, or has crashed
            yield Verdict(batch[done], process.exitcode or 0, "", traceback=not hung, hang=hung)
            done += 1
        place += done


def _next(connection: Connection, sentinel: int) -> Verdict | None:
    """Wait for the next verdict; None if the process has died, or says nothing for too long."""
    wait([connection, sentinel], WALL_SECONDS)
    try:
        return connection.recv() if connection.poll() else None
    except EOFError:
        return None


def _work(cases: Iterable[Case], material: Material, root: Path, connection: Connection) -> None:
    torch.set_num_threads(1)
    for case in cases:
        connection.send(trial(case, material, root))


def trial(case: Case, material: Material, root: Path) -> Verdict:
    """Give the command line one input, in this process.

    Args:
        case: The input.
        material: What it was made from; the canary's place is in it.
        root: Folder in which the case gets one of its own; nothing else in there may change.
    """
    folder = root / "case"
    shutil.rmtree(folder, ignore_errors=True)
    _lay_out(case, material, folder)
    before = _files(root)
    code, said, failed, hang = _run_in(folder, case.argv)
    allowed = (MINE, OF_RUN) if "--resume" in case.argv else (MINE,)
    after = _files(root)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    inside = {name for name in changed if any(rule.match(name.removeprefix("case/")) for rule in allowed)}
    canary = material.canary.exists() or (root / CANARY).exists()
    for path in (material.canary, root / CANARY):
        path.unlink(missing_ok=True)
    bad = failed or code not in (0, 1, 2) or bool(JARGON.search(said)) or not _lines_are_plain(said)
    return Verdict(case, code, said, bad, hang, tuple(sorted(changed - inside - {CANARY})), canary)


def _lines_are_plain(said: str) -> bool:
    """Whether a terminal shows what was said and does nothing else."""
    return all(line.isprintable() for line in said.replace("\r", "\n").replace("\x1b[A", "").split("\n"))


def _lay_out(case: Case, material: Material, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "photos").symlink_to(material.photos)
    if case.run:
        shutil.copytree(material.run, folder / "run", copy_function=os.link)
        (folder / "whole").symlink_to(material.run)
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a second name of the material's own
        path.write_bytes(content)
    for name in case.removed:
        (folder / name).unlink()


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all files below a folder, without following links."""
    return {
        path.relative_to(root).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() or path.is_symlink()
    }


def _run_in(folder: Path, argv: Sequence[str]) -> tuple[int, str, bool, bool]:
    """Return exit code, what was said on stderr, whether an exception came out, and whether time ran out."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang

    said, printed, before = io.StringIO(), io.StringIO(), os.getcwd()
    old = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    os.chdir(folder)
    try:
        with redirect_stderr(said), redirect_stdout(printed):
            code = run(list(argv))
        return code, said.getvalue(), False, False
    except Hang:
        return -1, said.getvalue(), False, True
    except BaseException:
        return -1, said.getvalue() + traceback.format_exc(), True, False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)
        os.chdir(before)
        sys.stderr.flush()
