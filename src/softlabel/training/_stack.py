"""Several models trained on the same views: how their outputs and gradients are computed.

`loop` runs them one after another; its numbers are those of training each alone, to the bit. `vmap` runs models of one
shape in one forward and backward pass (`torch.func`: a convolution becomes a grouped one, a batch norm keeps every
model's statistics apart); its numbers equal those of the loop to rounding. Where models are compiled, `vmap` compiles
the whole stack once per batch size, on CUDA with CUDA graphs: then launching kernels costs less.
On a CPU the loop is faster, since one model's convolutions keep it busy (`benchmarks/grid.py` measures it); on a GPU a
tiny model should not, which is not measured yet.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from softlabel.core import UnknownNameError
from softlabel.models import Bridged
from softlabel.training import _compiling
from softlabel.training._compiling import allow_variants, compile_model, of_any_size
from softlabel.training._execution import Execution

STACKS = {
    "auto": "vmap on CUDA, loop elsewhere",
    "loop": "one model after another on the shared views",
    "vmap": "models of one shape in one forward and backward pass",
}

BatchLoss = Callable[[Tensor], Tensor]
"""The mean loss of one model, given its logits [B, classes] in float32."""


def resolve_stack(stack: str, execution: Execution) -> str:
    """`loop` or `vmap`.

    Raises:
        UnknownNameError: no such stack.
    """
    if stack not in STACKS:
        raise UnknownNameError("stack", stack, STACKS)
    if stack == "auto":
        return "vmap" if execution.torch_device.type == "cuda" else "loop"
    return stack


class Loop:
    """The models one after another."""

    def __init__(self, models: Sequence[nn.Module], execution: Execution) -> None:
        self.models, self.execution = models, execution
        self.seconds = [0.0] * len(models)
        for model in models:
            compile_model(model, execution)

    def backward(self, views: Tensor, losses: Sequence[BatchLoss], draw: int) -> list[Tensor]:
        """Every model's loss on its own logits of `views`, detached; gradients go to the models' parameters.

        Args:
            draw: seeds what a model of another package draws in its forward pass, such as dropout.
        """
        found, views = [], of_any_size(views, self.execution.compiled)
        for position, (model, batch_loss) in enumerate(zip(self.models, losses, strict=True)):
            began = time.perf_counter()
            with self.execution.autocast(), _seeded(model, draw, views.device):
                logits = model(views)
            loss = batch_loss(_at_least_float32(logits))
            model.zero_grad(set_to_none=True)
            loss.backward()
            found.append(loss.detach())
            self.seconds[position] += time.perf_counter() - began
        return found

    def take_seconds(self) -> list[float]:
        """What each model took since the last call; on CUDA, where kernels run on, what it took to start them."""
        taken, self.seconds = self.seconds, [0.0] * len(self.models)
        return taken


class Vmap:
    """Models of one shape as one: their parameters and buffers become slices of stacked tensors."""

    def __init__(self, models: Sequence[nn.Module], execution: Execution) -> None:
        self.models, self.execution = models, execution
        self.on_cuda = execution.torch_device.type == "cuda"
        self.outputs = self._compiled() if execution.compiled else self._outputs
        self.skeleton = deepcopy(models[0]).to("meta")
        self.parameters = _stacked([dict(model.named_parameters()) for model in models])
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    def backward(self, views: Tensor, losses: Sequence[BatchLoss], draw: int) -> list[Tensor]:
        """As `Loop.backward`."""
        self.skeleton.train(self.models[0].training)
        views = views.contiguous()  # group norms under vmap know no channels-last layout
        if self.on_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step gave may be overwritten
        with self.execution.autocast():
            logits = self.outputs(self.parameters, self.buffers, views)
        found = [batch_loss(_at_least_float32(own)) for batch_loss, own in zip(losses, logits, strict=True)]
        for parameter in self.parameters.values():
            parameter.grad = None
        torch.stack(found).sum().backward()
        for position, model in enumerate(self.models):
            for name, parameter in model.named_parameters():
                gradient = self.parameters[name].grad
                parameter.grad = None if gradient is None else gradient[position]
        return [loss.detach() for loss in found]

    def _outputs(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], views: Tensor) -> Tensor:
        """Logits [models, B, classes]."""

        def one(own: dict[str, Tensor], state: dict[str, Tensor]) -> Tensor:
            return functional_call(self.skeleton, (own, state), (views,))  # type: ignore[no-any-return]

        logits: Tensor = vmap(one, randomness="different")(parameters, buffers)
        return logits

    def _compiled(self) -> Callable[[dict[str, Tensor], dict[str, Tensor], Tensor], Tensor]:
        mode = "reduce-overhead" if self.on_cuda else None
        allow_variants()
        return torch.compile(self._outputs, backend=_compiling.COMPILE_BACKEND, mode=mode, dynamic=False)


class Mixed:
    """Models of several shapes: each shape a `Vmap` of its own.

    A model that is alone in its shape, and those of other packages, which promise nothing under vmap, run in a `Loop`.
    """

    def __init__(self, models: Sequence[nn.Module], execution: Execution) -> None:
        shapes: dict[str, list[int]] = {}
        for position, model in enumerate(models):
            # The text of a module tells its layers and their settings.
            shapes.setdefault(repr(model), []).append(position)
        self.groups: list[tuple[list[int], Loop | Vmap]] = []
        for where in shapes.values():
            ours = [models[position] for position in where]
            alone = len(ours) == 1 or isinstance(ours[0], Bridged)
            self.groups.append((where, Loop(ours, execution) if alone else Vmap(ours, execution)))

    def backward(self, views: Tensor, losses: Sequence[BatchLoss], draw: int) -> list[Tensor]:
        """As `Loop.backward`."""
        found: dict[int, Tensor] = {}
        for where, group in self.groups:
            found |= zip(where, group.backward(views, [losses[i] for i in where], draw), strict=True)
        return [found[position] for position in range(len(losses))]


def build_stack(stack: str, models: Sequence[nn.Module], execution: Execution) -> Loop | Mixed:
    """The stack of that kind (`loop` or `vmap`) over models that are on the device."""
    return Loop(models, execution) if stack == "loop" else Mixed(models, execution)


@contextmanager
def _seeded(model: nn.Module, draw: int, device: torch.device) -> Iterator[None]:
    """Our models draw nothing in their forward pass; those of other packages draw from torch's global generators."""
    if not isinstance(model, Bridged):
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(draw)
        yield


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _stacked(tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of one name stacked [S, ...]; the given ones become slices of them, so both see every change."""
    stacked = {name: torch.stack([own[name].detach().contiguous() for own in tensors]) for name in tensors[0]}
    for position, own in enumerate(tensors):
        for name, tensor in own.items():
            tensor.data = stacked[name][position]
    return stacked
