"""Compiled forms give what the plain ones give, compile once, and are the same again when a run is resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, fx, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader, TensorDataset

from autolora.attacks import PGD
from autolora.errors import RunError
from autolora.losses import kl_each
from autolora.methods import AT, AutoLoRa, LoFT, Method, TwinsTRADES
from autolora.models import RobustModel, evaluating
from autolora.models.folding import Folding
from autolora.models.robust import Architecture, Normalize
from autolora.schedules import Constant
from autolora.threat import ThreatModel
from autolora.training import Checkpoints, Optimization, Step, assembly, fit
from autolora.training.forms import Compile, Forms, forms_for
from autolora.training.sharding import Shards
from autolora.training.trial import Trial
from autolora.training.update import Update

PGD_3 = PGD(ThreatModel("8/255"), steps=3)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.compiler.reset()


class Counting:
    """A backend that runs the traced graph as it is: what is tested is what is traced, and how often."""

    def __init__(self) -> None:
        self.graphs: list[list[Tensor]] = []  # their inputs

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs.append(inputs)
        return graph.forward


def small() -> RobustModel:
    """Two convolutions with batch norm, three classes; norms that are not the identity."""
    layers = [nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(6, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for norm in (layers[1], layers[4]):
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
    return RobustModel(normalize, nn.Sequential(*layers), nn.Linear(6, 3), Architecture("none", "fc", (3, 8, 8)))


def batches(count: int, sizes: tuple[int, ...] = (6,)) -> list[tuple[Tensor, Tensor]]:
    sizes = sizes * count
    return [(torch.rand(sizes[i], 3, 8, 8), torch.arange(sizes[i]) % 3) for i in range(count)]


def updated(model: RobustModel, method: Method, forms: Forms | None, parts: int = 1) -> Update:
    accelerator = Accelerator(cpu=True)
    optimizer = Optimization().optimizer([p for p in model.parameters() if p.requires_grad], 0.1)
    step, prepared = accelerator.prepare(Step(model, method), optimizer)
    folding = Folding(model.backbone)
    return Update(model, method, step, prepared, accelerator, nullcontext, folding, Shards(model), parts, forms)


METHODS: dict[str, Callable[[], Method]] = {
    "autolora-dual": lambda: AutoLoRa(PGD_3, rank=2, targets="all", statistics="dual", measured_on="epoch"),
    "autolora-apart": lambda: AutoLoRa(PGD_3, rank=2, targets="all", statistics="adversarial-only"),
    "loft": lambda: LoFT(PGD_3, rank=2),
    "twins": lambda: TwinsTRADES(PGD_3),
}


@pytest.mark.parametrize("name", ["autolora-dual", "loft", "twins"])
def test_training_is_the_same_with_graphs_whatever_way_data_take(name: str) -> None:
    results, data = [], batches(3)
    first, backend = small(), Counting()
    for mode in ("off", "on"):
        model, method = deepcopy(first), METHODS[name]()
        torch.manual_seed(1)
        method.prepare(model)
        forms = forms_for(model, mode, CPU, 6, backend=backend)
        update = updated(model, method, forms)
        losses = []
        for number, (x, y) in enumerate(data):
            method.begin_training(model)
            if isinstance(method, AutoLoRa):
                method.set_weights(0.3 + 0.2 * number)  # as from epoch to epoch
            losses.append(update(x, y))
        results.append((losses, model.state_dict(), method.measures()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    # the attack; passes of the backbone, and of its branch; LoFT's first pass computes the weights, its second does not
    assert len(backend.graphs) == 1 + 2


@pytest.mark.parametrize("mode", ["attack", "on"])
def test_only_whole_batches_are_compiled_and_new_weights_compile_nothing(mode: Compile) -> None:
    model, backend = small(), Counting()
    method = AT(PGD_3)
    update = updated(model, method, forms_for(model, mode, CPU, 6, backend=backend))
    model.train()
    for x, y in batches(6, sizes=(6, 6, 4)):
        update(x, y)
    assert len(backend.graphs) == (1 if mode == "attack" else 2)
    weights = {tensor.shape for tensor in backend.graphs[0]}
    assert {model.head.weight.shape, model.backbone.get_submodule("0").weight.shape} <= weights, "constants, not inputs"


def test_a_batch_in_parts_is_compiled_for_the_parts() -> None:
    model, backend = small(), Counting()
    update = updated(model, AT(PGD_3), forms_for(model, "attack", CPU, 7, backend=backend), parts=3)
    for x, y in batches(2, sizes=(7,)):  # 3, 3 and 1 image
        update(x, y)
    assert [tuple(tensor.shape) for tensor in backend.graphs[0] if tensor.shape[1:] == (3, 8, 8)] == [(3, 3, 8, 8)]
    assert len(backend.graphs) == 1


def test_the_attack_of_trades_is_compiled_by_itself() -> None:
    model, backend = small(), Counting()
    forms, ((x, y),) = forms_for(model, "attack", CPU, 6, backend=backend), batches(1)
    attack, unknown = PGD(ThreatModel("0.5", "L2"), 3, 0.2, "natural"), deepcopy(model)
    with evaluating(model), evaluating(unknown):
        natural = model(x).detach() + 0.1 * torch.randn(6, 3)
        expected = attack(model, x, y), attack(model, x, natural, kl_each)
        with forms.searching(Folding(model.backbone).network(model.backbone), 1):
            found = attack(model, x, y), attack(model, x, natural, kl_each)
            other = attack(unknown, x, y)  # nobody lent a form for this one
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other, expected[0], rtol=0, atol=0)
    assert len(backend.graphs) == 2 and all(parameter.grad is None for parameter in model.parameters())


def train(folder: Path, model: RobustModel, epochs: int, mode: Compile, resume: bool = False) -> None:
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(torch.rand(20, 3, 8, 8, generator=generator), torch.arange(20) % 3)
    fit(
        model,
        METHODS["autolora-apart"](),
        DataLoader(data, 6, shuffle=True, drop_last=True),  # type: ignore[arg-type]
        DataLoader(data, 20),  # type: ignore[arg-type]
        Constant(0.05),
        Accelerator(cpu=True),
        epochs=epochs,
        val_attack=PGD_3,
        checkpoints=Checkpoints(folder),
        compile=mode,
        resume=resume,
        progress=False,
    )


def test_a_resumed_run_takes_the_form_that_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Forms] = []

    def noted(*arguments: Any, chosen: bool | None, **options: Any) -> Forms:
        forms = forms_for(*arguments, **options, backend=Counting())
        forms.attack.compiled = forms.loss.compiled = chosen
        seen.append(forms)
        return forms

    monkeypatch.setattr(assembly, "forms_for", partial(noted, chosen=True))
    torch.manual_seed(3)
    train(tmp_path, small(), 1, "auto")
    assert seen[0].attack.left == 0 and seen[0].loss.left == 0, "an epoch of three batches was left, and is over"
    monkeypatch.setattr(assembly, "forms_for", partial(noted, chosen=None))
    train(tmp_path, small(), 2, "auto", resume=True)
    assert seen[1].chosen() == {"attack": True, "loss": True}
    monkeypatch.setattr(assembly, "forms_for", partial(noted, chosen=False))  # --compile off
    train(tmp_path, small(), 3, "off", resume=True)
    assert seen[2].chosen() == {"attack": False, "loss": False}


def test_a_compiled_run_that_is_resumed_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, model = Counting(), small()
    whole, stopped, resumed = deepcopy(model), deepcopy(model), small()
    monkeypatch.setattr(assembly, "forms_for", partial(forms_for, backend=backend))
    torch.manual_seed(3)
    train(tmp_path / "whole", whole, 2, "on")
    torch.manual_seed(3)
    train(tmp_path / "stopped", stopped, 1, "on")
    train(tmp_path / "stopped", resumed, 2, "on", resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert len(backend.graphs) == 3 * 3, "every session compiles the attack and two passes, and nothing in epoch two"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_compiler_itself_gives_the_same_attack() -> None:
    model, ((x, y),) = small(), batches(1)
    attack = PGD(ThreatModel("8/255"), 3, start="natural")
    with evaluating(model):
        expected = attack(model, x, y)
        with forms_for(model, "attack", CPU, 6).searching(Folding(model.backbone).network(model.backbone), 1):
            found = attack(model, x, y)
    assert float(((found - expected).abs() > 1e-5).float().mean()) < 0.01  # a sign may change where a slope is zero
    assert not torch.equal(found, x)


def test_on_a_cpu_and_where_it_must_be_deterministic_nothing_is_tried() -> None:
    for device, deterministic, processes, expected in (
        (CPU, False, 1, False),
        (torch.device("cuda"), False, 1, None),
        (torch.device("cuda"), True, 1, False),
        (torch.device("cuda"), False, 2, False),
    ):
        torch.use_deterministic_algorithms(deterministic)
        try:
            forms = forms_for(small(), "auto", device, 6, processes=processes)
        finally:
            torch.use_deterministic_algorithms(False)
        assert forms.chosen() == {"attack": expected, "loss": expected}, (device, deterministic, processes)


class Machine:
    """A clock that work moves on: plain calls take one second; compiled calls, and compiling, what is given."""

    def __init__(
        self, calls: int, compiled: float = 0.5, warm_up: float = 30.0, error: Exception | None = None
    ) -> None:
        self.now, self.compiled, self.warm_up, self.error = 0.0, compiled, warm_up, error
        self.did: list[str] = []
        self.trial = Trial("attack", None, calls, clock=lambda: self.now)

    def plain(self) -> str:
        self.now += 5.0 if not self.did else 1.0  # the first call finds everything cold
        self.did.append("plain")
        return "done"

    def graph(self) -> str:
        if self.error is not None:
            raise self.error
        self.now += self.compiled + (0.0 if "graph" in self.did else self.warm_up)
        self.did.append("graph")
        return "done"

    def run(self, calls: int) -> None:
        for _ in range(calls):
            assert self.trial.run(self.plain, self.graph) == "done"


def test_a_short_run_never_compiles() -> None:
    machine = Machine(calls=40)
    machine.run(40)
    assert machine.trial.compiled is False and set(machine.did) == {"plain"}


@pytest.mark.parametrize(
    ("compiled", "warm_up", "expected"),
    [(0.5, 30.0, True), (1.5, 30.0, False), (0.9, 30.0, False), (0.9, 7.0, True)],  # 0.1 s saved 88 times
)
def test_what_saves_more_than_its_warm_up_is_kept(compiled: float, warm_up: float, expected: bool) -> None:
    machine = Machine(100, compiled, warm_up)
    machine.run(100)
    assert machine.trial.compiled is expected
    assert machine.did[-1] == ("graph" if expected else "plain") and machine.did[:6] == ["plain"] * 6


def failure() -> Exception:
    return TorchDynamoException("InvalidCxxCompiler: No working C++ compiler found\n\nand a page of advice")


def test_a_trial_that_cannot_compile_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(100, error=failure())
    with caplog.at_level(logging.INFO, logger="autolora"):
        machine.run(100)
    assert machine.did == ["plain"] * 100
    assert [record.getMessage() for record in caplog.records] == [
        "attack: not compiled: it cannot be compiled here: InvalidCxxCompiler: No working C++ compiler found"
    ]


def test_what_is_asked_for_and_cannot_be_compiled_is_said_in_a_line() -> None:
    machine = Machine(100, error=failure())
    machine.trial.compiled = True
    with pytest.raises(RunError, match=r"^attack cannot be compiled here: .*C\+\+ compiler found; .*--compile off$"):
        machine.run(1)


def test_other_errors_of_the_first_compiled_call_are_not_the_compilers() -> None:
    machine = Machine(100, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        machine.run(100)
