"""The label store: one soft label per view of a training, with the views, on disk; to be replayed, grown and shared.

An artifact of the kind `label-store`. Its files are safetensors: the labels of some epochs each, as a codec wrote them
(`labels/`), their views (`views/`, where these are not drawn again from the seed), and what a codec learned. The
manifest says for which images, teachers and views they are, with the SHA-256 of every file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softlabel.core import (
    ConfigError,
    DistilledSet,
    Progress,
    Silent,
    StoreError,
    UnknownNameError,
    fingerprint,
    plain,
    stream_seed,
)
from softlabel.labels._codecs import Codec, FittedCodec
from softlabel.labels._coded import SEED_BYTES, sample_labels
from softlabel.labels._label_views import (
    VIEWS,
    CheckedViews,
    WrittenViews,
    fingerprint_of,
    regrouped,
    written_views,
)
from softlabel.labels._numbers import Rows
from softlabel.labels._sources import OnlineLabels, require_finite
from softlabel.store import (
    ASIDE,
    Artifact,
    ArtifactWriter,
    grown_artifact,
    is_complete,
    new_artifact,
    read_artifact,
    read_tensors,
    require_same,
)
from softlabel.training import Batches, DrawnViews, Execution, Protocol, ViewPlan
from softlabel.views import policy_from_plain

KIND = "label-store"
REVISION = 1
"""Part of every store's identity: raised when a release keeps other labels under the same settings."""
SHARD_ROWS = 10_000
"""Labels per file, or those of one epoch where these are more: what an interruption can lose."""
_CODEC, _ENCODER = "codec.safetensors", f"{ASIDE}encoder.safetensors"


@dataclass(frozen=True)
class StoredLabels:
    """Labels that are read from a store, by their rows.

    Attributes:
        shards: (first row, its tensors), ascending.
        targets: int64 [N], the class of every image.
    """

    shards: tuple[tuple[int, Rows], ...]
    codec: FittedCodec
    targets: Tensor
    fingerprint: str
    label_bytes: int
    regime: str = "replay"
    labeler_bytes: int = 0

    @property
    def space(self) -> str:
        return self.codec.codec.space

    def to(self, device: torch.device) -> "StoredLabels":
        return replace(self, codec=self.codec.to(device), targets=self.targets.to(device))

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor:
        """The labels at `rows`, float32 [B, C] in `space`; the views are not looked at."""
        if rows is None:
            raise ConfigError("Stored labels are read by their rows: train with the views of their store.")
        first, tensors = next((first, some) for first, some in reversed(self.shards) if first <= rows.start)
        device = self.targets.device
        part = {name: tensor[rows.start - first : rows.stop - first].to(device) for name, tensor in tensors.items()}
        return self.codec.decode(part, target=self.targets[index])


@dataclass(frozen=True)
class LabelStore:
    """A store that was opened.

    Attributes:
        path: its folder.
        epochs: that there are labels for.
        protocol: the name of the protocol whose views these are.
        views: the views of these epochs, as they were labelled.
        policy: their operations, as plain data.
    """

    path: Path
    labels: StoredLabels
    epochs: int
    protocol: str
    views: ViewPlan
    policy: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def views_for(self, protocol: Protocol, distilled: DistilledSet) -> ViewPlan:
        """The views for a training under a protocol, in batches of its size.

        Raises:
            ConfigError: other operations than those that were labelled, or a batch size that mixed views cannot have.
        """
        wanted = plain(protocol.policy(distilled.factor))
        if list(self.policy) != wanted:
            raise ConfigError(
                f"The labels at {self.path} were made for the views of the protocol {self.protocol!r}, and "
                f"{protocol.name!r} has others. Take --protocol {self.protocol.partition(' (')[0]}, or make labels for "
                f"this one (softlabel label)."
            )
        per_batch = any(op.per_batch for op in protocol.policy(distilled.factor))
        return regrouped(self.views, protocol.batch_size(len(distilled), distilled.info.classes), per_batch)


def write_label_store(
    path: Path,
    source: OnlineLabels,
    distilled: DistilledSet,
    *,
    protocol: Protocol,
    seed: int = 0,
    epochs: int | None = None,
    codec: Codec | None = None,
    views: str = "stored",
    execution: Execution,
    progress: Progress | None = None,
) -> None:
    """Label the views of a training and keep them; a store that has them is left alone, one with fewer is grown.

    An interrupted writing goes on where it was; an interrupted growing begins again, and the store is what it was. The
    views are those that a student of `seed` sees under `protocol`.

    Args:
        epochs: of views; the protocol's by default.
        codec: 16-bit floats by default.
        views: `stored` or `seed`, see `VIEWS`.

    Raises:
        ConfigError: a codec that does not fit the number of classes, or epochs below 1.
        StoreError: other labels stand at `path`.
        DiskFullError: no room for them.
    """
    codec, progress = codec or Codec(), progress or Silent()
    epochs = protocol.labelled_epochs if epochs is None else epochs
    if views not in VIEWS:
        raise UnknownNameError("way to keep views", views, VIEWS)
    if epochs < 1:
        raise ConfigError(f"Labels are stored for 1 epoch or more. Got {epochs} instead.")
    codec.check(distilled.info.classes)
    plan = DrawnViews.of(
        protocol, distilled.split, distilled.info, distilled.factor,
        stream_seed(seed, "student"),
    )  # fmt: skip
    identity = _identity(source, distilled, plan, protocol, seed, codec, views, execution)
    done = 0
    if is_complete(path):
        found = read_artifact(path, KIND).meta  # a damaged store is neither found nor grown
        require_same(path, "label store", found["fingerprint"], fingerprint(identity))
        done = int(found["epochs"])
    progress.start(f"labels of {distilled.method} images", epochs)
    progress.advance(min(done, epochs), "found" if done >= epochs else "")
    if done < epochs:
        meta = {**identity, "fingerprint": fingerprint(identity), "protocol": protocol.name, "epochs": epochs}
        work = _Writing(source, distilled, plan, codec, views, execution, progress)
        if done:
            with grown_artifact(path, KIND, meta) as writer:
                meta |= work.write(writer, done, epochs, found)
        else:
            with new_artifact(path, KIND, meta, resumable=True) as writer:
                meta |= work.write(writer, 0, epochs, {})
    progress.finish()


def load_label_store(path: Path, distilled: DistilledSet) -> LabelStore:
    """Open the store at `path`, for exactly these images.

    Raises:
        StoreError: no label store there, a file that is missing or not what was written (its SHA-256 is named), or a
            manifest that does not fit the files.
        ConfigError: its labels belong to other images.
    """
    artifact = read_artifact(path, KIND)
    meta = artifact.meta
    if meta["distilled"] != distilled.digest:
        raise ConfigError(
            f"The labels at {path} were made for another distilled set ({meta['distilled']}, not {distilled.digest}). "
            f"Make labels for this one with: softlabel label"
        )
    images, codec = len(distilled), Codec.parse(meta["codec"])
    shared = artifact.tensors(_CODEC) if _CODEC in artifact.files else {}
    fitted = FittedCodec(codec, distilled.info.classes, shared)
    shards = [(int(start), int(stop)) for start, stop in meta["shards"]]
    rows = tuple((start * images, _checked(artifact, start, stop, fitted, images)) for start, stop in shards)
    kept = artifact.bytes_of("labels/") + artifact.bytes_of("views/") + artifact.bytes_of(_CODEC)
    labels = StoredLabels(
        shards=rows,
        codec=fitted,
        targets=distilled.targets,
        fingerprint=fingerprint(meta["fingerprint"], meta["epochs"]),
        label_bytes=kept + (SEED_BYTES if meta["views"] == "seed" else 0),
    )
    views = _views(artifact, shards, images)
    return LabelStore(path, labels, int(meta["epochs"]), meta["protocol"], views, meta["policy"])


class _Writing:
    """Labels on their way to a store."""

    def __init__(
        self, source: OnlineLabels, distilled: DistilledSet, plan: DrawnViews, codec: Codec, views: str,
        execution: Execution, progress: Progress,
    ) -> None:  # fmt: skip
        self.source, self.distilled, self.plan = source.to(execution.torch_device), distilled, plan
        self.codec, self.views, self.execution, self.progress = codec, views, execution, progress
        split = distilled.split
        self.batches = Batches(split, distilled.info, execution.torch_device)

    def write(self, writer: ArtifactWriter, start: int, stop: int, before: Mapping[str, Any]) -> dict[str, Any]:
        """Files of the epochs from `start` to `stop`, and what the manifest says of all epochs."""
        fitted = self._codec(writer, growing=start > 0).to(self.execution.torch_device)
        length = max(1, SHARD_ROWS // len(self.distilled))
        shards = [(first, min(first + length, stop)) for first in range(start, stop, length)]
        names = list(before.get("views_fingerprints", ()))
        for first, last in shards:
            drawn = [list(self.plan.epoch(epoch)) for epoch in range(first, last)]
            names += [fingerprint_of(epoch) for epoch in drawn]
            if self.views == "stored":
                writer.write_tensors(_shard("views", first, last), written_views(drawn))
            if start or not (writer.folder / _shard("labels", first, last)).exists():
                writer.write_tensors(_shard("labels", first, last), self._labels(fitted, first, last))
            else:  # written before an interruption
                self.progress.advance(last - first)
        return {"shards": [*before.get("shards", ()), *map(list, shards)], "views_fingerprints": names}

    def _codec(self, writer: ArtifactWriter, growing: bool) -> FittedCodec:
        """The fitted codec; one that learned is kept, so that a store which goes on or grows has one codec."""
        fresh = FittedCodec(self.codec, self.distilled.info.classes, {})
        if not self.codec.shared_bytes(fresh.classes):
            return fresh
        if not (writer.folder / _ENCODER).exists():
            if growing:
                raise StoreError(
                    f"The store at {writer.folder} was shared without {_ENCODER}, and can be read but not grown. Make "
                    f"another one with --out."
                )
            fitted = self.codec.fit(sample_labels(self.source, self.distilled, self.plan, self.execution))
            # Whoever is interrupted between the two fits again; whoever has the encoder has both.
            writer.write_tensors(_CODEC, fitted.stored)
            writer.write_tensors(_ENCODER, fitted.shared)
        return replace(fresh, shared=read_tensors(writer.folder / _ENCODER)[0])

    def _labels(self, fitted: FittedCodec, first: int, last: int) -> Rows:
        rows: dict[str, list[Tensor]] = {}
        with self.execution.autocast(), self.execution.deterministic():
            for epoch in range(first, last):
                for batch in self.batches.epoch(self.plan, epoch):
                    logits = self.source.logits(batch.views, batch.index)
                    require_finite(logits)
                    for name, tensor in fitted.encode(logits, target=batch.target).items():
                        rows.setdefault(name, []).append(tensor.cpu())
                self.progress.advance()
        return {name: torch.cat(parts) for name, parts in rows.items()}


def _identity(
    source: OnlineLabels, distilled: DistilledSet, plan: DrawnViews, protocol: Protocol, seed: int, codec: Codec,
    views: str, execution: Execution,
) -> dict[str, Any]:  # fmt: skip
    """What the labels of a store depend on; not how many epochs of views it has."""
    return {
        "distilled": distilled.digest,
        "factor": distilled.factor,
        "classes": list(distilled.info.class_names),
        "labels": source.fingerprint,
        "teachers": [teacher.fingerprint for teacher in source.teachers],
        "policy": plain(protocol.policy(distilled.factor)),
        "batch": plan.batch,
        "size": [plan.height, plan.width],
        "images": plan.images,
        "seed": seed,
        "view_seed": plan.seed,
        "codec": codec.identity,
        "space": codec.space,
        "temperature": 1,
        "views": views,
        "execution": execution.identity,
        "revision": REVISION,
    }


def _shard(kind: str, first: int, last: int) -> str:
    return f"{kind}/{first:06d}-{last:06d}.safetensors"


def _checked(artifact: Artifact, first: int, last: int, codec: FittedCodec, images: int) -> Rows:
    """The labels of some epochs, mapped from their file.

    Raises:
        StoreError: they are not what the codec writes for so many views.
    """
    name = _shard("labels", first, last)
    if name not in artifact.files:
        raise StoreError(f"The manifest of {artifact.path} lists no file {name}. Make the labels again.")
    rows, count = artifact.tensors(name), (last - first) * images
    found = {key: (tensor.dtype, *tensor.shape) for key, tensor in rows.items()}
    expected = {key: (dtype, count, width) for key, (dtype, width) in codec.codec.layout(codec.classes).items()}
    if found != expected:
        raise StoreError(
            f"{artifact.path / name} does not hold {count} labels of the codec {codec.codec.spec}. Make the labels "
            f"again."
        )
    return rows


def _views(artifact: Artifact, shards: Sequence[tuple[int, int]], images: int) -> ViewPlan:
    meta = artifact.meta
    if meta["views"] == "stored":
        read = ((first, artifact.tensors(_shard("views", first, last))) for first, last in shards)
        return WrittenViews(tuple(read), images)
    height, width = meta["size"]
    policy = policy_from_plain(meta["policy"])
    drawn = DrawnViews(policy, int(meta["batch"]), images, int(height), int(width), int(meta["view_seed"]))
    return CheckedViews(drawn, tuple(meta["views_fingerprints"]))
