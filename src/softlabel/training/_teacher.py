"""Teachers: trained on the real data, kept with their whole trajectory, and checked before they are believed."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    Progress,
    Silent,
    SoftlabelWarning,
    StoreError,
    TeacherMismatchError,
    fingerprint,
    plain,
    stream_seed,
    tell_found,
)
from softlabel.losses import Loss
from softlabel.models import as_classifier, build_model, model_facts
from softlabel.store import (
    ArtifactWriter,
    FileCheckpoint,
    Store,
    is_complete,
    new_artifact,
    read_artifact,
    require_same,
)
from softlabel.training._accuracy import measure_accuracy
from softlabel.training._compiling import is_compiled, of_any_size
from softlabel.training._execution import Execution, environment, resolve_execution
from softlabel.training._history import History
from softlabel.training._loop import fit
from softlabel.training._optim import Optimizer, Schedule
from softlabel.training._protocol import Checks, Protocol

ACCURACY_TOLERANCE = 0.005
REVISION = 1
"""Part of every teacher's identity: raised when a release trains other weights from the same settings."""

TEACHER_PROTOCOL = Protocol(
    name="teacher",
    source="softlabel's own short recipe: SGD with Nesterov momentum, a linear warm-up and a linear fall.",
    epochs=12,
    batch=128,
    views="flip-crop",
    labels="hard",
    loss=Loss("ce"),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Schedule(name="warmup_linear", warmup=0.25),
    checks=Checks(every=1),
)


EXPERT_PROTOCOL = Protocol(
    name="expert",
    source=(
        "The experts of A label is worth a thousand images (NeurIPS 2024), restated: SGD without momentum or weight "
        "decay, batch 256, one-of-six DSA, a constant rate. Its code has rate 0.01 by default, 0.0005 for CIFAR-10 and "
        "hundreds of epochs there. Ask for its instance norm with convnet-3:norm=instance."
    ),
    epochs=24,
    batch=256,
    views="dsa",
    labels="hard",
    loss=Loss("ce"),
    optimizer=Optimizer(name="sgd", lr=0.01, momentum=0.0, weight_decay=0.0),
    schedule=Schedule(name="constant"),
    checks=Checks(every=1),
)

TEACHER_PROTOCOLS = {"teacher": TEACHER_PROTOCOL, "expert": EXPERT_PROTOCOL}
"""How teachers are trained, by name."""


@dataclass(frozen=True)
class Teacher:
    """A trained model, frozen and in evaluation mode.

    Attributes:
        model: maps normalised images to logits.
        info: the data it was trained on; its mean and std are those that its inputs must have.
        arch: its model spec.
        fingerprint: names architecture, training, data and epoch.
        accuracy: recorded on the test split, as a fraction; None when it was not measured.
        epoch: epochs of training behind these weights.
        size: bytes of its weights in float32, buffers included: what shipping it costs.
        public: bytes of public weights that it needs beside these, which everybody has or can get.
        of_set: digest of the one distilled set that it labels; empty for those that label any.
        offsets: float32 [N, classes], added to its logits for the views of image i of that set; not by `logits`.
    """

    model: nn.Module
    info: DatasetInfo
    arch: str
    fingerprint: str
    accuracy: float | None
    epoch: int
    size: int
    public: int = 0
    of_set: str = ""
    offsets: Tensor | None = None

    def to(self, device: torch.device) -> "Teacher":
        """This teacher on `device`; moves the model itself."""
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def logits(self, views: Tensor) -> Tensor:
        """float32 logits [B, classes] of views normalised with `info`; no gradient."""
        with torch.inference_mode():
            logits = self.model(of_any_size(views, is_compiled(self.model)))
        # Inference tensors cannot enter a graph: the float32 copy can.
        return logits.float().clone()  # type: ignore[no-any-return]

    def features(self, views: Tensor) -> Tensor:
        """float32 inputs of the last layer [B, feature_size]; no gradient."""
        with torch.inference_mode():
            return as_classifier(self.model).features(views).float()


def train_teacher(
    data: Dataset,
    *,
    arch: str,
    store: Store,
    execution: Execution | None = None,
    seed: int = 0,
    protocol: Protocol = TEACHER_PROTOCOL,
    save_every: int = 1,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a teacher and keep it; an equal one that is finished is found, an interrupted one is continued.

    The artifact holds the full state dict (buffers too) at initialisation, after every `save_every` epochs and after
    the last one (`epochs/000.safetensors`, ...), the test accuracy of every epoch, and the data's facts. The final
    epoch is the teacher: nothing is chosen on the test split.

    Args:
        out: the artifact's folder; its place in the store by default.

    Returns:
        the artifact's folder.

    Raises:
        StoreError: `out` holds another teacher.
        ConfigError: `save_every` is below 1.
        NonFiniteLossError: training blew up.
    """
    execution = execution or resolve_execution()
    if save_every < 1:
        raise ConfigError(f"--save-every must be 1 or more. Got {save_every} instead.")
    identity = _identity(data, arch, protocol, seed, save_every, execution)
    key = fingerprint(identity)
    path = teacher_path(
        data, arch=arch, protocol=protocol, store=store, execution=execution, seed=seed, save_every=save_every, out=out
    )
    progress = progress or Silent()
    if is_complete(path):
        tell_found(progress, f"teacher {arch} on {data.info.name}")
        return path
    model = build_model(
        arch, image_shape=data.info.image_shape, classes=data.info.classes, seed=stream_seed(seed, "teacher", "init")
    )
    meta: dict[str, Any] = {**identity, "fingerprint": key, "info": plain(data.info)}
    with new_artifact(path, "teacher", meta, resumable=True) as writer:
        checkpoint = FileCheckpoint(writer.folder / "resume.safetensors")
        writer.write_tensors("epochs/000.safetensors", model.state_dict())
        history = fit(
            model,
            data.train,
            protocol=protocol,
            info=data.info,
            seed=stream_seed(seed, "teacher"),
            execution=execution,
            test=data.test,
            checkpoint=checkpoint,
            save_seconds=0,
            on_epoch=_keep_epochs(writer, save_every, protocol.total_epochs),
            progress=progress,
            what=f"teacher {arch} on {data.info.name}",
        )
        meta |= _outcome(model, history, data, protocol, execution)
        checkpoint.clear()
    return path


def teacher_path(
    data: Dataset,
    *,
    arch: str,
    protocol: Protocol,
    store: Store,
    execution: Execution,
    seed: int = 0,
    save_every: int = 1,
    out: Path | None = None,
) -> Path:
    """Where `train_teacher` with these arguments keeps, or will keep, its teacher.

    Raises:
        StoreError: `out` holds another teacher.
    """
    key = fingerprint(_identity(data, arch, protocol, seed, save_every, execution))
    if out is None:
        return store.teacher(f"{data.info.name}-{arch}", key)
    if is_complete(out):
        require_same(out, "teacher", read_artifact(out, "teacher", verify=False).meta["fingerprint"], key)
    return out


def load_teacher(path: Path, epoch: int | None = None) -> Teacher:
    """The teacher at `path`: its final epoch, or an earlier one of its trajectory.

    Raises:
        StoreError: no teacher there, a corrupt file, or an epoch that was not kept (the message lists those that were).
    """
    artifact = read_artifact(path, "teacher")
    meta = artifact.meta
    info = DatasetInfo.from_json(meta["info"])
    epoch = int(meta["epochs"]) if epoch is None else epoch
    name = f"epochs/{epoch:03d}.safetensors"
    if name not in artifact.files:
        kept = ", ".join(str(int(Path(file).stem)) for file in artifact.names("epochs/"))
        raise StoreError(f"The teacher at {path} has no checkpoint of epoch {epoch}. It kept the epochs {kept}.")
    model = build_model(meta["arch"], image_shape=info.image_shape, classes=info.classes, seed=0)
    tensors = artifact.tensors(name)
    model.load_state_dict(tensors)
    model.eval().requires_grad_(False)
    accuracies = {int(point["epoch"]): float(point["test_accuracy"]) for point in meta["curve"]}
    return Teacher(
        model=model,
        info=info,
        arch=meta["arch"],
        fingerprint=fingerprint(meta["fingerprint"], epoch),
        accuracy=accuracies.get(epoch),
        epoch=epoch,
        size=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    )


def kept_epochs(path: Path) -> list[int]:
    """The epochs whose weights the teacher at `path` kept, ascending; 0 is its initialisation.

    Raises:
        StoreError: no teacher there.
    """
    return sorted(int(Path(file).stem) for file in read_artifact(path, "teacher", verify=False).names("epochs/"))


def load_trajectory(path: Path) -> list[Teacher]:
    """The teacher at `path` after every epoch that it kept, but for its initialisation.

    Raises:
        StoreError: no teacher there, a corrupt file, or a trajectory of which not every epoch was kept.
    """
    epochs = [epoch for epoch in kept_epochs(path) if epoch > 0]
    if epochs != list(range(1, len(epochs) + 1)):
        raise StoreError(
            f"The teacher at {path} did not keep every epoch of its training, but {', '.join(map(str, epochs[:6]))}"
            f"{', ...' if len(epochs) > 6 else ''}. Train one with softlabel teach --save-every 1."
        )
    return [load_teacher(path, epoch) for epoch in epochs]


def check_teacher(teacher: Teacher, info: DatasetInfo, *, what: str = "") -> None:
    """Refuse a teacher that does not fit the data: classes, their order, channels, image size.

    Args:
        what: is to fit, in words; the data by default.

    Raises:
        TeacherMismatchError: naming the first difference and what to do.
    """
    own, what = teacher.info, what or f"the data {info.name}"
    remedy = "Use a teacher trained on this data (softlabel teach), or the data it was trained on."
    if set(own.class_names) != set(info.class_names):
        missing = sorted(set(info.class_names) - set(own.class_names))[:3]
        raise TeacherMismatchError(
            f"The teacher {teacher.arch} was trained on other classes: it knows {own.classes} classes of {own.name}, "
            f"{what} has {info.classes}"
            + (f", of which it lacks {', '.join(missing)}" if missing else "")
            + f". {remedy}"
        )
    if own.class_names != info.class_names:
        at = next(i for i, (a, b) in enumerate(zip(own.class_names, info.class_names, strict=True)) if a != b)
        raise TeacherMismatchError(
            f"The teacher {teacher.arch} has the same classes in another order: class {at} is "
            f"{own.class_names[at]!r} to the teacher and {info.class_names[at]!r} in {what}. {remedy}"
        )
    if own.image_shape != info.image_shape:
        raise TeacherMismatchError(
            f"The teacher {teacher.arch} was trained on images of {_shape(own)}; {what} has "
            f"{_shape(info)}. {remedy} --image-size and --channels convert the data on loading."
        )


def warn_if_weaker(teacher: Teacher, data: Dataset, execution: Execution) -> float | None:
    """Measure a teacher on data it was not recorded on, and warn when it does worse than its record.

    A teacher on exactly its own data is believed. Otherwise a shortfall of more than half a point draws a
    `SoftlabelWarning`: the usual causes are another class order or other preprocessing.

    Returns:
        the measured accuracy, or None when there was nothing to measure.
    """
    if teacher.accuracy is None or teacher.info.digest == data.info.digest:
        return None
    measured = measure_accuracy(teacher.model, data.test, teacher.info, execution)
    if measured < teacher.accuracy - ACCURACY_TOLERANCE:
        warnings.warn(
            f"The teacher {teacher.arch} reaches {100 * measured:.1f} % on the test split of {data.info.name}, but "
            f"{100 * teacher.accuracy:.1f} % was recorded when it was trained. Check that the images, their "
            f"preprocessing and the class order are the same.",
            SoftlabelWarning,
            stacklevel=2,
        )
    return measured


def renormalise(views: Tensor, have: DatasetInfo, want: DatasetInfo) -> Tensor:
    """Views normalised with `have`'s mean and std as `want`'s normalisation would give them."""
    if have.mean == want.mean and have.std == want.std:
        return views
    scale, shift = _affine(have, want, views.device)
    return views * scale + shift


def mean_logits(teachers: Sequence[Teacher], views: Tensor, info: DatasetInfo) -> Tensor:
    """Mean logits of an ensemble, float32 [B, classes], for views normalised with `info`'s mean and std."""
    return torch.stack([t.logits(renormalise(views, info, t.info)) for t in teachers]).mean(dim=0)


def _affine(have: DatasetInfo, want: DatasetInfo, device: torch.device) -> tuple[Tensor, Tensor]:
    def column(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), device=device).view(1, -1, 1, 1)

    scale = column(have.std) / column(want.std)
    shift = (column(have.mean) - column(want.mean)) / column(want.std)
    return scale, shift


def _identity(
    data: Dataset, arch: str, protocol: Protocol, seed: int, save_every: int, execution: Execution
) -> dict[str, Any]:
    foreign = model_facts(arch)  # empty for our own models
    return {
        **({"model": foreign} if foreign else {}),
        "arch": arch,
        "protocol": protocol.fingerprint,
        "data": data.info.digest,
        "classes": list(data.info.class_names),
        "train": data.train.digest,
        "revision": REVISION,
        "seed": seed,
        "save_every": save_every,
        "execution": execution.identity,
    }


def _keep_epochs(writer: ArtifactWriter, save_every: int, epochs: int) -> Any:
    def keep(epoch: int, model: nn.Module, history: History) -> None:
        if (epoch + 1) % save_every == 0 or epoch + 1 == epochs:
            writer.write_tensors(f"epochs/{epoch + 1:03d}.safetensors", model.state_dict())

    return keep


def _outcome(
    model: nn.Module, history: History, data: Dataset, protocol: Protocol, execution: Execution
) -> dict[str, Any]:
    selection = measure_accuracy(model, data.selection, data.info, execution) if data.selection is not None else None
    return {
        "epochs": protocol.total_epochs,
        "test_accuracy": history.final,
        "best_test_accuracy": history.best_test,
        "selection_accuracy": selection,
        "curve": [{**point, "train_loss": history.train_loss[int(point["epoch"]) - 1]} for point in history.curve],
        "settings": plain(protocol),
        "timing": {"train_seconds": history.train_seconds, "test_seconds": history.test_seconds},
        "environment": environment(execution),
    }


def _shape(info: DatasetInfo) -> str:
    return f"{info.channels} x {info.height} x {info.width}"
