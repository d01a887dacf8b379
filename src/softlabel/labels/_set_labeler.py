"""A projector made for the images of one distilled set: trained on its views, and with an offset per image."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    DistilledSet,
    Progress,
    Silent,
    Split,
    fingerprint,
    plain,
    stream_seed,
    tell_found,
)
from softlabel.labels._hello import DELTA, KIND, OFFSET_CODEC, OFFSETS, HelloConfig, build_projector
from softlabel.labels._numbers import NUMBERS
from softlabel.labels._offsets import Observed, refit_head
from softlabel.labels._projector import Projector
from softlabel.labels._sources import OnlineLabels, online_labels
from softlabel.labels._teach_labeler import (
    accuracies,
    identity_of,
    keep_delta,
    likeness,
    place_name,
    require_labeler,
    train_labeler,
)
from softlabel.models import Backbone, load_backbone
from softlabel.store import FileCheckpoint, Store, is_complete, new_artifact, read_artifact
from softlabel.training import (
    Batch,
    Batches,
    DrawnViews,
    Execution,
    Teacher,
    check_teacher,
    environment,
    fit,
)

REFIT_REVISION = 1
"""Part of the identity of labelers with a head refitted: raised when a release fits another."""
OWN_LIKENESS_EPOCHS = 10
SAVE_SECONDS = 10.0
"""Between checkpoints of a training on few images, whose epochs are short."""


def train_set_labeler(
    data: Dataset,
    teachers: Sequence[Teacher],
    config: HelloConfig,
    distilled: DistilledSet,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a labeler as `train_labeler` does, then for the images of the one distilled set that it is to label.

    HeLlO trains its projector on the real images alone. Students see views of the set's: there, a projector of few
    bytes can follow its teachers more closely, by training on these (`set_epochs`), and by an offset per image, the
    mean over views of what it lacks (`offset_epochs`): a byte per image and class, where full labels are two per view.
    What differs among views is left to the projector, and its head is fitted to that anew (`refit`; with two views of
    an image or more), in closed form: within-image least squares from the head of before, then the rank that it has.
    All images count alike, whatever weights they have for students; optimizer, rate, loss and views are those of the
    training before.

    Args:
        config: with `set_epochs`, `offset_epochs` or both.
        seed: of order and views, which are not those of a student of the same seed.
        out: the artifact's folder; its place in the store by default. The labeler before is kept in the store.

    Raises:
        ConfigError: no epochs over the set, or a backbone as in `train_labeler`.
        MissingExtraError: as in `train_labeler`.
        StoreError: `out` holds another labeler.
        TeacherMismatchError: a teacher for other data, or a set of other classes or another image size.
    """
    tuning = _tuning(data, teachers, config, distilled, execution, seed)
    path, what = tuning.place(store, out), f"labeler {tuning.backbone.spec} on {distilled.method}, IPC {distilled.ipc}"
    progress = progress or Silent()
    if is_complete(path):
        tell_found(progress, what)
        return path
    before = config.without_offsets if config.offset_epochs else config.of_any
    make = partial(train_labeler, data, teachers, before)
    if before.of_set:
        make = partial(train_set_labeler, data, teachers, before, distilled)
    base = read_artifact(make(store=store, execution=execution, seed=seed, progress=progress), KIND)
    meta: dict[str, Any] = {
        **tuning.identity,
        "config": {
            **base.meta["config"],
            "set_epochs": config.set_epochs,
            "offset_epochs": config.offset_epochs,
            "refit": config.refit,
        },
        "backbone": base.meta["backbone"],
        "fingerprint": tuning.key,
        "info": plain(data.info),
    }
    own = _OwnViews(replace(distilled.split, weights=None), distilled.factor, config, seed, data.info, execution)
    with new_artifact(path, KIND, meta, resumable=True) as writer:
        projector = build_projector(tuning.backbone, data.info, config)
        projector.load_delta(base.tensors(DELTA))
        projector.to(execution.torch_device)
        checkpoint = FileCheckpoint(writer.folder / "resume.safetensors")
        offsets = None
        if config.offset_epochs:
            seen, epochs = _observe(projector, tuning.source, own, checkpoint, progress, what), config.offset_epochs
            lack = refit_head(projector, seen, epochs) if config.refit else seen.lack(epochs)
            packed = NUMBERS[OFFSET_CODEC].pack(lack)
            writer.write_tensors(OFFSETS, packed)
            offsets = NUMBERS[OFFSET_CODEC].unpack(packed, data.info.classes).to(execution.torch_device)
        else:
            own.train(projector, tuning.source, checkpoint, progress, what)
        keep_delta(writer, projector)
        if config.offset_epochs and not config.refit:  # the network of before
            meta |= {name: base.meta[name] for name in ("test_accuracy", "selection_accuracy", "parameters")}
            meta["environment"] = environment(execution)
        else:
            meta |= accuracies(projector, data, execution)
        views = own.drawn("own likeness", range(OWN_LIKENESS_EPOCHS))
        meta["likeness"] = likeness(projector, tuning.source, views, execution, offsets=offsets)
        checkpoint.clear()
    return path


def set_labeler_path(
    data: Dataset,
    teachers: Sequence[Teacher],
    config: HelloConfig,
    distilled: DistilledSet,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    out: Path | None = None,
) -> Path:
    """Where `train_set_labeler` with these arguments keeps, or will keep, its labeler.

    Raises:
        ConfigError, StoreError, TeacherMismatchError: as there.
    """
    return _tuning(data, teachers, config, distilled, execution, seed).place(store, out)


@dataclass(frozen=True, eq=False)
class _Tuning:
    """What is to be done for a set, named by all that its labeler depends on."""

    identity: Mapping[str, Any]
    backbone: Backbone
    source: OnlineLabels
    name: str

    @property
    def key(self) -> str:
        return fingerprint(self.identity)

    def place(self, store: Store, out: Path | None) -> Path:
        """Where it stands or will stand; another labeler there is refused."""
        path = out or store.labels(self.name, self.key)
        if is_complete(path):
            require_labeler(path, self.key)
        return path


def _tuning(
    data: Dataset, teachers: Sequence[Teacher], config: HelloConfig, distilled: DistilledSet, execution: Execution,
    seed: int,
) -> _Tuning:  # fmt: skip
    if not config.of_set:
        raise ConfigError(
            "A labeler of one set needs set_epochs or offset_epochs (--set-epochs, --offset-epochs) of 1 or more. Got "
            "0 of both."
        )
    for teacher in teachers:
        check_teacher(teacher, distilled.info, what=f"the set ({distilled.method}, IPC {distilled.ipc})")
    backbone = load_backbone(config.backbone, config.size or None)
    source = online_labels(teachers, data.info, execution)
    before = identity_of(backbone, source, data, config, seed, execution)
    identity = {
        **before,
        "of": fingerprint(before),
        "set": distilled.digest,
        "factor": distilled.factor,
        "set_epochs": config.set_epochs,
        "offset_epochs": config.offset_epochs,
        **({"refit": REFIT_REVISION} if config.refit else {}),
        "set_protocol": config.protocol(max(1, config.set_epochs)).fingerprint,
    }
    return _Tuning(identity, backbone, source, f"{place_name(data, config)}-own")


@dataclass(frozen=True, eq=False)
class _OwnViews:
    """The images of the set that a labeler is made for, and its views of them.

    Attributes:
        factor: tiles per side of the images.
        info: normalisation of the views.
    """

    images: Split
    factor: int
    config: HelloConfig
    seed: int
    info: DatasetInfo
    execution: Execution

    def train(
        self, projector: Projector, source: OnlineLabels, checkpoint: FileCheckpoint, progress: Progress, what: str
    ) -> None:
        """Train the projector on views of the images as its teachers label them."""
        fit(
            projector,
            self.images,
            protocol=self.config.protocol(self.config.set_epochs),
            info=self.info,
            seed=stream_seed(self.seed, "labeler", "own images"),
            execution=self.execution,
            labels=source,
            factor=self.factor,
            checkpoint=checkpoint,
            save_seconds=SAVE_SECONDS,
            progress=progress,
            what=what,
        )

    def drawn(self, purpose: str, epochs: range) -> Iterator[Batch]:
        """Every image once per epoch, augmented as for training."""
        seed = stream_seed(self.seed, "labeler", purpose)
        plan = DrawnViews.of(self.config.protocol(epochs.stop), self.images, self.info, self.factor, seed)
        batches = Batches(self.images, self.info, self.execution.torch_device)
        return (batch for epoch in epochs for batch in batches.epoch(plan, epoch))


def _observe(
    projector: Projector, source: OnlineLabels, own: _OwnViews, checkpoint: FileCheckpoint, progress: Progress,
    what: str,
) -> Observed:  # fmt: skip
    """What a projector sees in the views of the set's images, and what it lacks of its teachers' labels for them."""
    source, execution, config = source.to(own.execution.torch_device), own.execution, own.config
    epochs, saved, start = config.offset_epochs, checkpoint.load(), 0
    seen = Observed.nothing(len(own.images), own.info.classes, projector.head.in_features if config.refit else 0)
    if saved is not None:
        seen, start = Observed({name: tensor.clone() for name, tensor in saved[0].items()}), saved[1]["epoch"]
    progress.start(f"{what}: offsets", epochs)
    progress.advance(start)
    saved_at = time.monotonic()
    for epoch in range(start, epochs):
        with torch.no_grad(), execution.autocast(), execution.deterministic():
            for batch in own.drawn("offsets", range(epoch, epoch + 1)):
                features = projector.features(batch.views)
                lack = source.logits(batch.views, batch.index).float() - projector.logits(features).float()
                if config.refit and projector.centred:
                    lack = lack - lack.mean(dim=1, keepdim=True)
                seen.add(batch.index.cpu(), features.cpu(), lack.cpu())
        if time.monotonic() - saved_at >= SAVE_SECONDS:
            checkpoint.save(seen.sums, {"epoch": epoch + 1})
            saved_at = time.monotonic()
        progress.advance()
    progress.finish()
    return seen
