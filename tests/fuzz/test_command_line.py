"""A few inputs of each kind that a stranger could give; ``benchmarks/fuzz.py`` gives thousands of the same kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hostile_cases import Call, Case, Material
from hostile_inputs import KINDS, cases
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trials import make_material, trial

FEW = settings(
    max_examples=8,
    derandomize=True,  # the same ones every time: a finding of today is no surprise of tomorrow's
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = make_material(tmp_path_factory.mktemp("material"))
    torch.set_num_threads(threads)
    return made


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_no_input_brings_about_what_none_may(
    kind: str, data: st.DataObject, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> None:
    verdict = trial(data.draw(cases(kind, material)), material, tmp_path_factory.getbasetemp() / "trial")
    assert verdict.fine, verdict


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (("evaluate", "run/model", "--data", "photos"), {"run/model/pytorch_model.bin": "PICKLE"}),
        (("fit", "photos", "--model", "run/model", "--epochs", "1"), {"run/model/pytorch_model.bin": "PICKLE"}),
        (("fit", "--config", "run/config.yaml", "--resume"), {"run/checkpoints/last/state.pt": "PICKLE"}),
        (("export", "run", "--format", "peft", "--out", "out"), {"run/adapter/adapter_model.bin": "PICKLE"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_pickle_where_a_folder_has_weights(
    argv: tuple[str, ...], files: dict[str, str], material: Material, tmp_path: Path
) -> None:
    """Also where another library would look for it: timm takes ``pytorch_model.bin`` if there is nothing better."""
    evil = {name: _pickle(material) for name in files}
    removed = {
        "run/model/pytorch_model.bin": ("run/model/model.safetensors",),
        "run/checkpoints/last/state.pt": ("run/result.json",),
        "run/adapter/adapter_model.bin": ("run/adapter/adapter_model.safetensors",),
    }[next(iter(files))]
    verdict = trial(Case("runs", argv, evil, run=True, removed=removed), material, tmp_path)
    assert not verdict.canary and not verdict.traceback and verdict.code in (0, 1, 2)
    assert verdict.code == 0 or verdict.said.splitlines()[-1].startswith("autolora: ")
    assert "weights_only" not in verdict.said  # no advice on how to run the code all the same


def _pickle(material: Material) -> bytes:
    import pickle

    return pickle.dumps({"state_dict": Call(material.canary)})


def test_the_trial_itself_notices(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the four things that none may bring about, played."""
    import trials

    def plays(action: str) -> object:
        def run(argv: list[str]) -> int:
            if action == "traceback":
                raise KeyError("x")
            if action == "hang":
                while True:
                    pass
            if action == "outside":
                Path("../escaped").write_text("x")
            if action == "canary":
                material.canary.touch()
            return 0

        return run

    monkeypatch.setattr(trials, "CPU_SECONDS", 0.2)
    for action in ("traceback", "hang", "outside", "canary", "nothing"):
        monkeypatch.setattr(trials, "run", plays(action))
        verdict = trial(Case("arguments", ("fit",)), material, tmp_path)
        found = {
            "traceback": verdict.traceback,
            "hang": verdict.hang,
            "outside": verdict.outside == ("escaped",),
            "canary": verdict.canary,
        }
        assert {name for name, seen in found.items() if seen} - {"traceback"} == {action} - {"nothing", "traceback"}
        assert verdict.fine == (action == "nothing")
        (tmp_path / "escaped").unlink(missing_ok=True)
