"""Students trained as a stack are the students trained one by one."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, NonFiniteLossError, UnknownNameError
from softlabel.evaluation import find_protocol
from softlabel.labels import FixedLabels, online_labels
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.training import (
    Execution,
    History,
    Normaliser,
    Optimizer,
    Protocol,
    Teacher,
    Trainee,
    fit,
    fit_stack,
    resolve_execution,
    resolve_stack,
)
from softlabel.training._compiling import is_compiled
from softlabel.training._stack import Loop, Vmap

LOSSES = ("kl:temperature=4", "mse_ce", "gift")
OPTIMIZERS = (Optimizer(), Optimizer(name="sgd", lr=0.05, momentum=0.9), Optimizer(name="rmsprop", lr=1e-3))
# Adaptive optimizers divide gradients by their size: where a gradient is zero but for rounding (a bias before a batch
# norm), they turn rounding into full steps. To compare rounding with rounding, plain ones.
PLAIN = (
    Optimizer(name="sgd", lr=0.1),
    Optimizer(name="sgd", lr=0.02, momentum=0.9),
    Optimizer(name="sgd", lr=0.05, momentum=0.5, nesterov=True, weight_decay=1e-2),
)


def protocol(loss: str, optimizer: Optimizer, epochs: int = 3) -> Protocol:
    # The colours of "gift" need three channels; a shift and a flip do for the stack.
    return replace(
        find_protocol("gift", epochs), views="flip-crop", batch=8, loss=Loss.parse(loss), optimizer=optimizer
    )


def model(data: Dataset, spec: str, seed: int = 0) -> nn.Module:
    return build_model(spec, image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)


def labels(data: Dataset) -> FixedLabels:
    draws = torch.Generator().manual_seed(5)
    return FixedLabels(torch.randn(len(data.train), data.info.classes, generator=draws))


def trainees(
    data: Dataset, source: FixedLabels, specs: tuple[str, ...], optimizers: tuple[Optimizer, ...] = OPTIMIZERS
) -> list[Trainee]:
    return [
        Trainee(model=model(data, spec, seed), protocol=protocol(loss, optimizer), labels=source)
        for seed, (spec, loss, optimizer) in enumerate(zip(specs, LOSSES, optimizers, strict=True))
    ]


def one_by_one(data: Dataset, stack: list[Trainee], execution: Execution) -> list[History]:
    return [
        fit(t.model, data.train, protocol=t.protocol, info=data.info, seed=3, execution=execution, labels=t.labels,
            test=data.test)
        for t in stack
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_loop_is_training_one_by_one_to_the_bit(tiny_data: Dataset, norm: str, precision: str) -> None:
    execution, source = resolve_execution("cpu", precision), labels(tiny_data)
    specs = (f"convnet-2:width=8,norm={norm}", f"convnet-1:width=8,norm={norm}", f"convnet-2:width=4,norm={norm}")
    alone, together = (trainees(tiny_data, source, specs) for _ in range(2))
    expected = one_by_one(tiny_data, alone, execution)
    found = fit_stack(
        together, tiny_data.train, info=tiny_data.info, seed=3, execution=execution, test=tiny_data.test, stack="loop"
    )
    for mine, theirs, history, other in zip(together, alone, found, expected, strict=True):
        assert isinstance(history, History)
        assert (history.train_loss, history.curve, history.steps, history.images_seen) == (
            other.train_loss, other.curve, other.steps, other.images_seen)  # fmt: skip
        for name, tensor in mine.model.state_dict().items():
            assert torch.equal(tensor, theirs.model.state_dict()[name]), name


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of torch.compile but the making of kernels, which takes a quarter of a minute each."""
    monkeypatch.setattr("softlabel.training._compiling.COMPILE_BACKEND", "aot_eager")


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(("stack", "compiled"), [("vmap", False), ("vmap", True), ("loop", True)])
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
def test_a_stack_is_training_one_by_one_to_rounding(tiny_data: Dataset, norm: str, stack: str, compiled: bool) -> None:
    execution, source = resolve_execution("cpu", "fp32"), labels(tiny_data)
    specs = (f"convnet-2:width=8,norm={norm}",) * 2 + ("convnet-1:width=8",)  # two shapes in one stack
    alone, together = (trainees(tiny_data, source, specs, PLAIN) for _ in range(2))
    expected = one_by_one(tiny_data, alone, execution)
    execution = replace(execution, compiled=compiled)
    found = fit_stack(
        together, tiny_data.train, info=tiny_data.info, seed=3, execution=execution, test=tiny_data.test, stack=stack
    )
    for mine, theirs, history, other in zip(together, alone, found, expected, strict=True):
        assert isinstance(history, History)
        torch.testing.assert_close(history.train_loss, other.train_loss, rtol=1e-3, atol=1e-5)
        for name, tensor in mine.model.state_dict().items():
            torch.testing.assert_close(tensor, theirs.model.state_dict()[name], rtol=1e-3, atol=1e-4)


def steps(stack: Loop | Vmap, models: list[nn.Module], views: list[Tensor], target: Tensor) -> list[list[Tensor]]:
    """Losses of a few steps of gradient descent, every model with a loss of its own."""
    functions = [Loss.parse(spec).function() for spec in LOSSES]
    teacher = torch.randn(len(target), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    losses = [
        lambda logits, f=function: f(student=logits, teacher=teacher, target=target).mean() for function in functions
    ]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in models]
    told = []
    for batch in views:
        told.append(stack.backward(batch, losses, draw=0))
        for optimizer in optimizers:
            optimizer.step()
    return told


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(("kind", "compiled"), [(Vmap, False), (Vmap, True), (Loop, True)])
@pytest.mark.parametrize("spec", ["convnet-2:width=6", "convnet-2:width=6,norm=instance", "resnet-18:width=4"])
def test_a_stack_in_float64(spec: str, kind: type[Loop] | type[Vmap], compiled: bool) -> None:
    execution = Execution("cpu", "fp32", compiled)
    draws = torch.Generator().manual_seed(0)
    views = [torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=draws) for _ in range(3)]
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    models = [build_model(spec, image_shape=(3, 16, 16), classes=3, seed=seed).double().train() for seed in range(3)]
    others = deepcopy(models)
    found = steps(kind(models, execution), models, views, target)
    expected = steps(Loop(others, replace(execution, compiled=False)), others, views, target)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(models, others, strict=True):
        for name, tensor in mine.state_dict().items():  # running statistics too
            torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-8, atol=1e-10)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, within its compiler
@pytest.mark.parametrize("stack", ["loop", "vmap"])
def test_a_compiled_stack_with_its_kernels(tiny_data: Dataset, stack: str) -> None:
    execution, source = resolve_execution("cpu", "fp32"), labels(tiny_data)
    specs = ("convnet-1:width=4",) * 3
    alone, together = (trainees(tiny_data, source, specs, PLAIN) for _ in range(2))
    expected = one_by_one(tiny_data, alone, execution)
    found = fit_stack(
        together,
        tiny_data.train,
        info=tiny_data.info,
        seed=3,
        execution=replace(execution, compiled=True),
        test=tiny_data.test,
        stack=stack,
    )
    for history, other in zip(found, expected, strict=True):
        assert isinstance(history, History)
        torch.testing.assert_close(history.train_loss, other.train_loss, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("quick_compiler")
def test_a_compiled_teacher_says_the_same_of_any_number_of_views(tiny_data: Dataset) -> None:
    arch = "convnet-1:width=4"
    taught = Teacher(model(tiny_data, arch).eval(), tiny_data.info, arch, "test", 0.25, 0, 1000)
    views = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.train.images[:6])
    expected = taught.logits(views)
    execution = replace(resolve_execution("cpu", "fp32"), compiled=True)
    source = online_labels([taught], tiny_data.info, execution)
    assert is_compiled(taught.model)
    for count in (6, 3, 2):
        found = source.logits(views[:count], torch.arange(count))
        torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(("stack", "compiled"), [("loop", False), ("vmap", False), ("loop", True), ("vmap", True)])
def test_one_that_blows_up_leaves_the_others_alone(tiny_data: Dataset, stack: str, compiled: bool) -> None:
    execution, source = resolve_execution("cpu", "fp32"), labels(tiny_data)
    specs = ("convnet-1:width=4",) * 3
    quiet = trainees(tiny_data, source, specs, PLAIN)
    expected = one_by_one(tiny_data, [quiet[0], quiet[2]], execution)
    loud = trainees(tiny_data, source, specs, PLAIN)
    loud[1] = replace(loud[1], protocol=protocol("mse_ce", Optimizer(name="sgd", lr=1e30)))
    execution = replace(execution, compiled=compiled)
    found = fit_stack(
        loud, tiny_data.train, info=tiny_data.info, seed=3, execution=execution, test=tiny_data.test, stack=stack
    )
    assert isinstance(found[1], NonFiniteLossError)
    assert "learning rate 1e+30" in str(found[1])
    for position, other in ((0, expected[0]), (2, expected[1])):
        history = found[position]
        assert isinstance(history, History)
        assert len(history.train_loss) == 3
        torch.testing.assert_close(history.train_loss, other.train_loss, rtol=1e-3, atol=1e-5)


def test_trainees_that_share_no_views_are_refused(tiny_data: Dataset) -> None:
    execution, source = resolve_execution("cpu", "fp32"), labels(tiny_data)
    stack = trainees(tiny_data, source, ("convnet-1:width=4",) * 3)
    stack[2] = replace(stack[2], protocol=replace(stack[2].protocol, epochs=4))
    with pytest.raises(ConfigError, match="differ in views, batch size, epochs or labelled epochs"):
        fit_stack(stack, tiny_data.train, info=tiny_data.info, seed=3, execution=execution)
    with pytest.raises(ConfigError, match="at least one model"):
        fit_stack([], tiny_data.train, info=tiny_data.info, seed=3, execution=execution)


def test_kinds_of_stacks() -> None:
    assert resolve_stack("auto", Execution("cpu", "fp32")) == "loop"
    assert resolve_stack("auto", Execution("cuda:1", "bf16")) == "vmap"
    with pytest.raises(UnknownNameError, match="auto, loop, vmap"):
        resolve_stack("pile", Execution("cpu", "fp32"))


def test_whether_models_are_compiled_is_in_a_fingerprint_only_where_they_are() -> None:
    assert Execution("cpu", "bf16").identity == {"device": "cpu", "precision": "bf16"}
    assert Execution("cpu", "bf16", True).identity == {"device": "cpu", "precision": "bf16", "compiled": True}


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.training._execution.shutil.which", lambda name: None)
    assert not resolve_execution("cpu", "fp32").compiled
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler and found none of g\+\+, clang\+\+"):
        resolve_execution("cpu", "fp32", compiled=True)


@pytest.mark.usefixtures("quick_compiler")
def test_models_of_one_shape_are_compiled_once(tiny_data: Dataset) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    execution, source = Execution("cpu", "fp32", True), labels(tiny_data)
    fit_stack(
        trainees(tiny_data, source, ("convnet-1:width=4",) * 3, PLAIN),
        tiny_data.train, info=tiny_data.info, seed=3, execution=execution, test=tiny_data.test, stack="loop",
    )  # fmt: skip
    # For training and for testing; the last batch is smaller than the others and adds none.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
