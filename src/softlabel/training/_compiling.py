"""Models under `torch.compile`.

A compiled model fuses what stands between its convolutions (norm, activation, pooling), which on a CPU takes most of a
small model's time. Models of one shape share what was compiled. The batch size is left open from the first step on, so
that what is compiled does not depend on the sizes that came before: the same command gives the same numbers.
"""

import torch
from torch import Tensor, nn

from softlabel.models import Bridged
from softlabel.training._execution import Execution

COMPILE_BACKEND = "inductor"
_VARIANTS = 64  # compiled forms per forward method: shapes of model x training or testing; torch gives up after 8


def compile_model(model: nn.Module, execution: Execution) -> None:
    """Run `model` compiled from now on, where `execution` says so; models of other packages stay as they are."""
    if execution.compiled and not isinstance(model, Bridged) and not is_compiled(model):
        allow_variants()
        model.compile(backend=COMPILE_BACKEND)


def is_compiled(model: nn.Module) -> bool:
    """Whether `compile_model` has compiled it."""
    return model._compiled_call_impl is not None


def allow_variants() -> None:
    """Let one process compile many models: beyond its limit torch would go on uncompiled, with a line in a log."""
    torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)


def of_any_size(views: Tensor, compiled: bool) -> Tensor:
    """`views`, marked as a batch [B, ...] of any size but one for what is `compiled`."""
    if compiled:
        torch._dynamo.maybe_mark_dynamic(views, 0)
    return views
