"""The one training loop: students and teachers, alone or several on the same views, all go through `fit_stack`."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    DatasetInfo,
    LabelSource,
    NonFiniteLossError,
    Progress,
    Silent,
    Split,
    stream_seed,
)
from softlabel.training._batches import Batch, Batches, ViewPlan, plan_of
from softlabel.training._execution import Execution
from softlabel.training._history import Checkpoint, History
from softlabel.training._member import Member, OnEpoch, Trainee
from softlabel.training._protocol import Protocol
from softlabel.training._stack import Loop, Mixed, build_stack, resolve_stack


def fit(
    model: nn.Module,
    split: Split,
    *,
    protocol: Protocol,
    info: DatasetInfo,
    seed: int,
    execution: Execution,
    labels: LabelSource | None = None,
    factor: int = 1,
    test: Split | None = None,
    checkpoint: Checkpoint | None = None,
    save_seconds: float = 30.0,
    on_epoch: OnEpoch | None = None,
    progress: Progress | None = None,
    what: str = "training",
) -> History:
    """Train one model in place under `protocol` and tell how it went: `fit_stack` with a stack of one.

    Raises:
        ConfigError: a loss that needs soft labels without them.
        NonFiniteLossError: the loss became NaN or infinite; names epoch and step.
    """
    trainee = Trainee(model=model, protocol=protocol, labels=labels, checkpoint=checkpoint, on_epoch=on_epoch)
    [result] = fit_stack(
        [trainee],
        split,
        info=info,
        seed=seed,
        execution=execution,
        factor=factor,
        test=test,
        save_seconds=save_seconds,
        progress=progress,
        what=what,
        stack="loop",
    )
    if isinstance(result, NonFiniteLossError):
        raise result
    return result


def fit_stack(
    trainees: Sequence[Trainee],
    split: Split,
    *,
    info: DatasetInfo,
    seed: int,
    execution: Execution,
    factor: int = 1,
    test: Split | None = None,
    plan: ViewPlan | None = None,
    stack: str = "auto",
    save_seconds: float = 30.0,
    progress: Progress | None = None,
    what: str = "training",
) -> list[History | NonFiniteLossError]:
    """Train several models in place on the same views, and tell how each went.

    Order, views and mixing come from streams of `seed` alone (`plan_of`), so a model in a stack sees what it would
    see alone, and a resumed training continues with the numbers that the unbroken one would have drawn. A view is made
    once, and a label source that trainees share looks at it once. Time spent for all is shared equally.

    Args:
        split: training images uint8 [N, C, H, W] and targets.
        info: gives mean and std.
        factor: tiles per side of the training images, for the view policy.
        test: measured at the protocols' checks.
        plan: the views, where labels were made for certain ones; None draws the protocols' own from `seed`.
        stack: how the models are run: see `STACKS`.
        save_seconds: checkpoints are saved after an epoch when so much time has passed.

    Returns:
        per trainee its history, or the error that ended its training; the others go on.

    Raises:
        ConfigError: trainees that cannot share views, or a loss that needs soft labels without them.
    """
    first = _require_shared_views(trainees, split, info, factor)
    progress = progress or Silent()
    kind = resolve_stack(stack, execution)
    sources = {id(t.labels): t.labels.to(execution.torch_device) for t in trainees if t.labels is not None}
    members = [Member(t, sources.get(id(t.labels)), execution.torch_device) for t in trainees]
    batches = Batches(split if first.weights else replace(split, weights=None), info, execution.torch_device)
    plan = plan or plan_of(first, split, info, factor, seed)
    epochs, saved = first.total_epochs, time.monotonic()
    start = min(member.start for member in members)
    progress.start(what, epochs)
    progress.advance(start, f"going on after epoch {start}" if start else "")
    active: list[Member] = []
    for epoch in range(start, epochs):
        before, active = active, [member for member in members if member.error is None and member.start <= epoch]
        if not active:
            continue
        if active != before:
            models = build_stack(kind, [member.model for member in active], execution)
        _epoch(active, models, batches.epoch(plan, epoch), execution, epoch, seed)
        for member in active:
            member.end_epoch(epoch, test, info, execution)
        if epoch + 1 < epochs and time.monotonic() - saved >= save_seconds:
            for member in active:
                member.save(epoch + 1)
            saved = time.monotonic()
        progress.advance(note=_note(active))
    progress.finish()
    return [member.result() for member in members]


def _epoch(
    members: Sequence[Member], models: Loop | Mixed, batches: Iterable[Batch], execution: Execution, epoch: int,
    seed: int,
) -> None:  # fmt: skip
    """One pass over the data; the loss of every step stays on the device."""
    began, seen = time.perf_counter(), 0
    for member in members:
        member.model.train()
    with execution.deterministic():
        for batch in batches:
            logits = _label(batch, members, execution, epoch)
            losses = [member.batch_loss(batch, logits.get(id(member.labels)), epoch) for member in members]
            draw = stream_seed(seed, "forward", epoch, batch.rows.start)
            found = models.backward(batch.views, losses, draw)
            for member, loss in zip(members, found, strict=True):
                member.step(epoch, batch.within)
                member.losses.append(loss)
            seen += len(batch.index)
    whole = time.perf_counter() - began
    own = (
        models.take_seconds()
        if isinstance(models, Loop) and execution.torch_device.type == "cpu"
        else [0.0] * len(members)
    )
    shared = (whole - sum(own)) / len(members)
    for member, seconds in zip(members, own, strict=True):
        member.history.images_seen += seen
        member.history.train_seconds += seconds + shared


def _label(batch: Batch, members: Iterable[Member], execution: Execution, epoch: int) -> dict[int, Tensor | None]:
    """Teacher logits of a batch, once per label source, by the source's id."""
    asked = [member.labels_in(epoch) for member in members]
    sources = {id(source): source for source in asked if source is not None}
    with execution.autocast():
        return {key: source.logits(batch.views, batch.index, batch.rows) for key, source in sources.items()}


def _require_shared_views(trainees: Sequence[Trainee], split: Split, info: DatasetInfo, factor: int) -> Protocol:
    """The first protocol, when all trainees see the same views under it."""
    if not trainees:
        raise ConfigError("A stack needs at least one model.")

    def views(protocol: Protocol) -> tuple[object, ...]:
        batch = protocol.batch_size(len(split), info.classes)
        return (
            protocol.policy(factor),
            batch,
            protocol.total_epochs,
            protocol.labelled_epochs,
            protocol.hard_epochs,
            protocol.weights,
        )

    first = trainees[0].protocol
    for trainee in trainees:
        regime = trainee.labels.regime if trainee.labels is not None else "hard"
        trainee.protocol.with_labels(regime).require_labels()
        trainee.protocol.require_space(trainee.labels.space if trainee.labels is not None else "logits")
        if views(trainee.protocol) != views(first):
            raise ConfigError(
                f"Models of one stack see the same views. The protocols {first.name!r} and {trainee.protocol.name!r} "
                f"differ in views, batch size, epochs or labelled epochs: train them apart."
            )
    return first


def _note(members: Sequence[Member]) -> str:
    going = [member for member in members if member.error is None]
    if not going:
        return "stopped: loss not finite"
    if len(going) == 1:
        note = f"loss {going[0].history.train_loss[-1]:.4g}"
        curve = going[0].history.curve
        fresh = bool(curve) and curve[-1]["epoch"] == len(going[0].history.train_loss)
        return note + (f", test {100 * curve[-1]['test_accuracy']:.1f} %" if fresh else "")
    shown = [100 * member.history.curve[-1]["test_accuracy"] for member in going if member.history.curve]
    return f"test {min(shown):.1f} to {max(shown):.1f} %" if shown else f"{len(going)} students"
