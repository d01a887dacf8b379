"""Optimizers as specs, Lion, and states that survive an interruption."""

import importlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from softlabel.core import ConfigError, Dataset, MissingExtraError, UnknownNameError
from softlabel.evaluation import find_protocol
from softlabel.models import build_model
from softlabel.store import FileCheckpoint
from softlabel.training import OPTIMIZERS, Execution, History, Optimizer, fit
from softlabel.training._optim import OPTIMIZER_DEFAULTS, OPTIMIZER_OPTIONS

HAS_LION = find_spec("pytorch_optimizer") is not None
needs_lion = pytest.mark.skipif(not HAS_LION, reason="pytorch-optimizer is not installed")
STUDENT = "convnet-1:width=4"

# Specs.


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_name_stands_for_its_defaults(name: str) -> None:
    found = Optimizer.parse(name)
    assert found == Optimizer(name=name, **OPTIMIZER_DEFAULTS[name])
    assert found.spec == name


def test_defaults() -> None:
    assert OPTIMIZER_DEFAULTS.keys() == OPTIMIZERS.keys()
    rates = {name: Optimizer.parse(name).lr for name in OPTIMIZERS}
    assert rates == {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "rmsprop": 1e-3, "lion": 1e-4}
    decays = {name: Optimizer.parse(name).weight_decay for name in OPTIMIZERS}
    assert decays == {"adamw": 1e-4, "adam": 1e-4, "sgd": 1e-4, "rmsprop": 1e-4, "lion": 1e-3}
    assert Optimizer.parse("lion").betas == (0.9, 0.99)
    assert Optimizer.parse("adamw").betas == (0.9, 0.999)
    assert Optimizer.parse("sgd").momentum == 0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("sgd:lr=0.1,momentum=0.9", Optimizer(name="sgd", lr=0.1, momentum=0.9)),
        ("sgd:momentum=0.9,nesterov=true", Optimizer(name="sgd", lr=1e-2, momentum=0.9, nesterov=True)),
        ("adamw:lr=1e-2", Optimizer(lr=1e-2)),
        ("adam:weight_decay=0", Optimizer(name="adam", weight_decay=0.0)),
        ("lion:lr=0.001", Optimizer(name="lion", lr=1e-3, weight_decay=1e-3, betas=(0.9, 0.99))),
        ("rmsprop:decay_on=matrices", Optimizer(name="rmsprop", decay_on="matrices")),
        ("sgd:lr=1", Optimizer(name="sgd", lr=1.0)),
    ],
)
def test_parsed(spec: str, expected: Optimizer) -> None:
    assert Optimizer.parse(spec) == expected


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.25},
        {"weight_decay": 0.0},
        {"momentum": 0.5, "nesterov": True},
        {"decay_on": "matrices", "lr": 3e-7},
    ],
    ids=str,
)
def test_a_spec_leads_back(name: str, options: dict[str, Any]) -> None:
    options = {key: value for key, value in options.items() if key in OPTIMIZER_OPTIONS[name]}
    optimizer = Optimizer(name=name, **{**OPTIMIZER_DEFAULTS[name], **options})
    assert Optimizer.parse(optimizer.spec) == optimizer
    assert optimizer.spec.count("=") == len(options)
    assert Optimizer.parse(Optimizer.parse(optimizer.spec).spec) == optimizer


def test_what_equals_the_default_is_not_in_the_spec() -> None:
    assert Optimizer.parse("sgd:lr=0.01,momentum=0.0").spec == "sgd"
    assert Optimizer(name="sgd", lr=1e-3).spec == "sgd:lr=0.001"  # not the spec's default, though the class's


@pytest.mark.parametrize(
    ("spec", "error", "fragment"),
    [
        ("adamq", UnknownNameError, "no optimizer named 'adamq'.*adam, adamw, lion, rmsprop, sgd"),
        ("", (UnknownNameError, ConfigError), "optimizer|spec|name"),
        ("sgd:rate=1", ConfigError, "optimizer 'sgd' has no option 'rate'.*lr"),
        ("sgd:name=adam", ConfigError, "optimizer 'sgd' has no option 'name'"),
        ("adam:momentum=0.9", ConfigError, "optimizer 'adam' has no option 'momentum'"),
        ("rmsprop:nesterov=true", ConfigError, "optimizer 'rmsprop' has no option 'nesterov'"),
        ("adam:betas=0.9", ConfigError, "no option 'betas'"),
        ("sgd:lr=fast", ConfigError, "lr"),
        ("sgd:lr=0", ConfigError, "learning rate must be a number above 0. Got 0"),
        ("sgd:lr=-0.1", ConfigError, "learning rate must be a number above 0. Got -0.1"),
        ("sgd:lr=inf", ConfigError, "'lr' of the optimizer 'sgd' must be float. Got 'inf'"),
        ("sgd:lr=nan", ConfigError, "'lr' of the optimizer 'sgd' must be float. Got 'nan'"),
        ("adam:weight_decay=-1", ConfigError, "weight decay must be 0 or more. Got -1"),
        ("adam:weight_decay=nan", ConfigError, "'weight_decay' of the optimizer 'adam' must be float. Got 'nan'"),
        ("sgd:momentum=1", ConfigError, "Momentum and betas must lie in 0..1"),
        ("sgd:momentum=-0.5", ConfigError, "Momentum and betas must lie in 0..1"),
        ("sgd:nesterov=true", ConfigError, "Nesterov needs a momentum above 0"),
        ("sgd:decay_on=biases", UnknownNameError, "no decay_on named 'biases'.*all, matrices"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be(spec: str, error: type[Exception], fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        Optimizer.parse(spec)


def test_values_that_cannot_be() -> None:
    for value in (float("inf"), float("nan"), 0.0, -1.0):
        with pytest.raises(ConfigError, match="learning rate must be a number above 0"):
            Optimizer(lr=value)
    for value in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ConfigError, match="weight decay must be 0 or more"):
            Optimizer(weight_decay=value)
    for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)):
        with pytest.raises(ConfigError, match="betas must lie in"):
            Optimizer(betas=betas)


# Built.


def student(data: Dataset) -> nn.Module:
    return build_model(STUDENT, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)


BUILT = [
    "adamw",
    "adam",
    "sgd:momentum=0.5,nesterov=true",
    "rmsprop:momentum=0.5",
    pytest.param("lion", marks=needs_lion),
]


@pytest.mark.parametrize("spec", BUILT)
def test_settings_reach_torch(spec: str, tiny_data: Dataset) -> None:
    settings = replace(Optimizer.parse(spec), lr=0.125, weight_decay=0.25, decay_on="matrices")
    built = settings.build(student(tiny_data))
    assert type(built).__name__.lower() == settings.name
    assert [group["lr"] for group in built.param_groups] == [0.125, 0.125]
    assert [group["weight_decay"] for group in built.param_groups] == [0.25, 0.0]
    for key in ("momentum", "nesterov", "betas"):
        if key in built.param_groups[0]:
            assert built.param_groups[0][key] == getattr(settings, key)


@needs_lion
def test_lion_takes_signed_steps() -> None:
    """w <- w (1 - lr decay) - lr sign(0.9 m + 0.1 g); m <- 0.99 m + 0.01 g (Chen et al. 2023, Algorithm 2)."""
    model = nn.Linear(3, 1, bias=False)
    weight = model.weight.detach().clone().double()
    moment = torch.zeros_like(weight)
    optimizer = Optimizer.parse("lion:lr=0.01,weight_decay=0.1").build(model)
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(1, 3, generator=draws)
        model.weight.grad = gradient.clone()
        optimizer.step()
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * (0.9 * moment + 0.1 * gradient).sign()
        moment = 0.99 * moment + 0.01 * gradient
        torch.testing.assert_close(model.weight.detach(), weight.float())


def test_lion_without_its_package(tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "pytorch_optimizer":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        Optimizer.parse("lion").build(student(tiny_data))
    assert str(caught.value) == (
        "The optimizer 'lion' needs the package 'pytorch-optimizer', which is not installed. Install it with: "
        "pip install 'softlabel[lion]'"
    )
    Optimizer.parse("adamw").build(student(tiny_data))  # the others need nothing


# Interrupted.


@pytest.mark.parametrize("spec", [*BUILT, "sgd"])
def test_a_state_survives_an_interruption(spec: str, tiny_data: Dataset, execution: Execution, tmp_path: Path) -> None:
    protocol = replace(
        find_protocol("hard", epochs=4), batch=40, optimizer=replace(Optimizer.parse(spec), weight_decay=1e-2)
    )

    def train(checkpoint: FileCheckpoint | None, *, stop: int | None = None) -> tuple[nn.Module, History]:
        def kill(epoch: int, *_: object) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        model = student(tiny_data)
        history = fit(
            model, tiny_data.train, protocol=protocol, info=tiny_data.info, seed=1, execution=execution,
            test=tiny_data.test, checkpoint=checkpoint, save_seconds=0.0, on_epoch=kill,
        )  # fmt: skip
        return model, history

    whole, expected = train(None)
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    for stop in (1, 3):  # twice
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint, stop=stop)
    kept = checkpoint.load()
    assert kept is not None
    assert kept[1]["epoch"] == 3
    # Without it a resumed training would be another one.
    assert any(name.startswith("optimizer.") for name in kept[0]) == (spec != "sgd")
    model, history = train(checkpoint)
    assert (history.train_loss, history.curve, history.steps) == (expected.train_loss, expected.curve, expected.steps)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
