"""Checkpoints by coverage-guided fuzzing: what reaches new lines of the reader of pickles is varied further.

The machine that reads pickles without running them is the one parser of our own, and small enough to be instrumented;
YAML, images, archives and safetensors are read by libraries, for which tests/fuzz has inputs that are nearly right. Any
exception but those that become one line, a file opened or a program started ends it, with the input beside.

pip install atheris  (Apache-2.0)
OMP_NUM_THREADS=1 python benchmarks/fuzz_pickles.py [-max_total_time=300] [-seed=1] [any option of libFuzzer]
"""

from __future__ import annotations

import io
import pickle
import sys
import tempfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris
import numpy as np
import torch

with atheris.instrument_imports(include=["autolora.models.checkpoints", "autolora.pickles"]):
    from autolora.models.checkpoints import files, torch_files

FORBIDDEN = ("open", "os.system", "subprocess.Popen", "os.exec", "socket.connect", "import")  # events of Python's audit
watching = False


def seeds() -> Iterator[bytes]:
    """Yield small files as they are saved: of torch in both formats, of numpy, of plain values and options."""
    state = OrderedDict(weight=torch.ones(2, 3), bias=torch.zeros(2, dtype=torch.float16))
    contents: list[Any] = [{"state_dict": state, "epoch": 3, "args": Namespace(lr=0.1)}, state]
    for content in contents:
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=False)
        yield stream.getvalue()
    for content in ([1, 2.5, None, ("a", b"b")], {"a": {1, 2}, "b": np.ones(2)}, Namespace(x=[1])):
        yield from (pickle.dumps(content, protocol) for protocol in (0, 2, 4))


def watch(event: str, details: tuple[Any, ...]) -> None:
    """End where a file that is only read opens another, or starts something."""
    if watching and event in FORBIDDEN:
        raise SystemError(f"{event} {details}")


def try_one(data: bytes) -> None:
    """Read an input; what the reader says of damaged and hostile files is no finding."""
    global watching
    watching = True
    try:
        files.tensors_in(torch_files.read_pickles(io.BytesIO(data)))
    except KNOWN:
        pass
    finally:
        watching = False


KNOWN = (files.Damaged, files.Refused)


def main() -> None:
    """Fuzz until the time given to libFuzzer is over, or something was found."""
    sys.addaudithook(watch)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            Path(folder, str(number)).write_bytes(data)
        atheris.Setup([*sys.argv, folder], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
