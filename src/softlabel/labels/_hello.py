"""HeLlO (arXiv 2408.08201): labels made online by a projector of few stored bytes, in place of a teacher or of files.

The projector is trained on the real images against the mean logits of several weak teachers, checkpoints of one
trajectory, and the class: squared distance + `weight` x cross-entropy (its section 3). The paper does not give weight,
optimizer, epochs or prompt; ours are options. It adapts a CLIP ResNet's convolutions; here it is whatever linear layers
and full convolutions the backbone has, and a head without texts begins at least squares.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    Progress,
    Silent,
    Split,
    StoreError,
    UnknownNameError,
    build_config,
    fingerprint,
    parse_spec,
    plain,
    stream_seed,
)
from softlabel.labels._projector import Projector, ProjectorConfig, text_head
from softlabel.labels._sources import OnlineLabels, online_labels
from softlabel.losses import Loss
from softlabel.models import Backbone, absolute, load_backbone
from softlabel.store import FileCheckpoint, Store, is_complete, new_artifact, read_artifact
from softlabel.training import (
    Batch,
    Batches,
    Checks,
    DrawnViews,
    Execution,
    Optimizer,
    Protocol,
    Schedule,
    Teacher,
    environment,
    fit,
    measure_accuracy,
)

KIND = "labeler"
REVISION = 1
"""Part of every labeler's identity: raised when a release makes other labels from the same settings."""
RIDGE = 1e-3
"""Of the least squares that a head begins at, times the mean square of the features."""
LEAST_SQUARES_VIEWS = 50_000
LIKENESS_VIEWS = 5_000
_DELTA = "delta.safetensors"


@dataclass(frozen=True, kw_only=True)
class HelloConfig(ProjectorConfig):
    """How a projector is built and trained.

    Attributes:
        weight: of the cross-entropy beside the squared distance to the teachers' mean logits.
        epochs: over the real training images; 0 keeps the head that it begins at.
        batch, lr, decay: of AdamW; the rate falls to 0 as a cosine.
        views: augmentation of the real images, a name in `softlabel.training.POLICIES`: best that of the students,
            whose views it will label. A backbone that never saw such views tells little of them.
    """

    weight: float = 0.1
    epochs: int = 2
    batch: int = 128
    lr: float = 1e-3
    decay: float = 1e-4
    views: str = "gift"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 0:
            raise ConfigError(f"A projector is trained for 0 epochs or more. Got {self.epochs} instead.")
        self.protocol(max(1, self.epochs))

    @classmethod
    def parse(cls, spec: str, usual: Mapping[str, Any] | None = None) -> "HelloConfig":
        """The settings of a spec such as `hello:rank=4`, over those of `usual`.

        Raises:
            UnknownNameError: no such kind of labeler.
            ConfigError: an option that does not exist or makes no sense.
        """
        name, options = parse_spec(spec)
        if name != "hello":
            raise UnknownNameError("labeler", name, ("hello",))
        return build_config(cls, {**(usual or {}), **options}, "the labeler 'hello'")

    def protocol(self, epochs: int) -> Protocol:
        """The training as a protocol."""
        return Protocol(
            name="hello",
            epochs=epochs,
            batch=self.batch,
            views=self.views,
            labels="online",
            loss=Loss.parse(f"mse_ce:weight={self.weight!r}"),
            optimizer=Optimizer(name="adamw", lr=self.lr, weight_decay=self.decay),
            schedule=Schedule(name="cosine"),
            checks=Checks(count=1),
        )


def train_labeler(
    data: Dataset,
    teachers: Sequence[Teacher],
    config: HelloConfig,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a projector on the real data and keep its delta; an equal one is found, an interrupted one goes on.

    Args:
        teachers: weak ones, whose mean logits it learns; they are not needed any more when it is made.
        out: the artifact's folder; its place in the store by default.

    Raises:
        ConfigError: a backbone that is not on this machine, or texts that it does not have.
        MissingExtraError: peft, or what the backbone needs, is not installed.
        TeacherMismatchError: a teacher for other data.
    """
    source = online_labels(teachers, data.info, execution)
    backbone = load_backbone(config.backbone, config.size or None)
    identity = _identity(backbone, source, data, config, seed, execution)
    key, progress = fingerprint(identity), progress or Silent()
    path = out or _place(data, config, key, store)
    if is_complete(path):
        _require(path, key)
        return path
    named = absolute(config.backbone)  # found again from wherever the labeler is loaded
    meta: dict[str, Any] = {
        **identity,
        "config": plain(replace(config, backbone=named)),
        "backbone": {"id": named, "digest": backbone.digest, "bytes": backbone.bytes},
        "fingerprint": key,
        "info": plain(data.info),
    }
    with new_artifact(path, KIND, meta, resumable=True) as writer:
        projector = _projector(backbone, data.info, config)
        projector.to(execution.torch_device)
        checkpoint = FileCheckpoint(writer.folder / "resume.safetensors")
        if not projector.centred and checkpoint.load() is None:
            _begin_at_least_squares(projector, source, data, config, seed, execution, progress)
        if config.epochs:
            fit(
                projector,
                data.train,
                protocol=config.protocol(config.epochs),
                info=data.info,
                seed=stream_seed(seed, "labeler"),
                execution=execution,
                labels=source,
                checkpoint=checkpoint,
                save_seconds=0,
                progress=progress,
                what=f"labeler {backbone.spec} on {data.info.name}",
            )
            checkpoint.clear()
        delta, chosen = projector.delta(), data.selection
        projector.load_delta(delta)  # judged as it is stored
        writer.write_tensors(_DELTA, delta)
        meta |= {
            "test_accuracy": measure_accuracy(projector, data.test, data.info, execution),
            "selection_accuracy": measure_accuracy(projector, chosen, data.info, execution) if chosen else None,
            "likeness": likeness(projector, source, _views(data, config, seed, "likeness", execution), execution),
            "parameters": sum(tensor.numel() for tensor in delta.values()),
            "environment": environment(execution),
        }
    return path


def check_projector(config: HelloConfig, info: DatasetInfo) -> None:
    """Build the untrained projector once: whatever it lacks is told before teachers are trained for it.

    Raises:
        ConfigError, MissingExtraError: as `train_labeler`.
    """
    _projector(load_backbone(config.backbone, config.size or None), info, config)


def labeler_path(
    data: Dataset,
    teachers: Sequence[Teacher],
    config: HelloConfig,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
) -> Path:
    """Where `train_labeler` with these arguments keeps, or will keep, its labeler."""
    backbone = load_backbone(config.backbone, config.size or None)
    identity = _identity(backbone, online_labels(teachers, data.info, execution), data, config, seed, execution)
    return _place(data, config, fingerprint(identity), store)


def labeler_step_seconds(
    data: Dataset, teachers: Sequence[Teacher], config: HelloConfig, execution: Execution
) -> float:
    """How long a step of its training takes: measured on two of them, of which the second counts."""
    backbone = load_backbone(config.backbone, config.size or None)
    projector = _projector(backbone, data.info, config)
    batch = Split(data.train.images[: config.batch], data.train.targets[: config.batch])
    taught = [
        fit(
            projector,
            batch,
            protocol=replace(config.protocol(1), batch=len(batch)),
            info=data.info,
            seed=turn,
            execution=execution,
            labels=online_labels(teachers, data.info, execution),
        )
        for turn in range(2)
    ]
    return taught[-1].train_seconds / taught[-1].steps


def stand_in_labeler(data: Dataset, config: HelloConfig) -> Teacher:
    """An untrained projector, which labels at the cost of a trained one."""
    backbone = load_backbone(config.backbone, config.size or None)
    projector = _projector(backbone, data.info, config)
    delta = projector.delta()
    projector.merge()
    projector.eval().requires_grad_(False)
    return Teacher(
        model=projector,
        info=data.info,
        arch=f"hello:{backbone.spec}",
        fingerprint=fingerprint("untrained labeler", plain(config)),
        accuracy=None,
        epoch=0,
        size=sum(tensor.numel() * tensor.element_size() for tensor in delta.values()),
        public=backbone.bytes,
    )


def load_labeler(path: Path) -> Teacher:
    """The projector at `path` as a teacher: its size is that of the delta; the backbone's bytes are `public`.

    Raises:
        StoreError: no labeler there, or a corrupt file.
        ConfigError: its backbone is not on this machine, or has other weights than the one it was made with.
    """
    artifact = read_artifact(path, KIND)
    meta = artifact.meta
    config = build_config(HelloConfig, meta["config"], "the labeler")
    info = DatasetInfo.from_json(meta["info"])
    backbone = load_backbone(config.backbone, config.size or None)
    if backbone.digest != meta["backbone"]["digest"]:
        raise ConfigError(
            f"The labeler at {path} was made with the backbone {backbone.spec!r} of the weights "
            f"{meta['backbone']['digest']}, and the one on this machine has {backbone.digest}. Get the weights that it "
            f"was made with, or make it again."
        )
    projector = _projector(backbone, info, config)
    projector.load_delta(artifact.tensors(_DELTA))
    projector.merge()
    projector.eval().requires_grad_(False)
    return Teacher(
        model=projector,
        info=info,
        arch=f"hello:{backbone.spec}",
        fingerprint=fingerprint(meta["fingerprint"], "labeler"),
        accuracy=meta["test_accuracy"],
        epoch=config.epochs,
        size=artifact.bytes_of(_DELTA),
        public=backbone.bytes,
    )


def labeler_features(labeler: Teacher) -> Callable[[Tensor], Tensor]:
    """What a labeler's head sees, [B, D] of normalised images [B, C, H, W].

    Raises:
        ConfigError: a teacher that is no labeler.
    """
    if not isinstance(labeler.model, Projector):
        raise ConfigError(f"The teacher {labeler.arch!r} is no labeler. Make one with softlabel labeler.")
    return labeler.model.features


def _identity(
    backbone: Backbone, source: OnlineLabels, data: Dataset, config: HelloConfig, seed: int, execution: Execution
) -> dict[str, Any]:
    return {
        # The backbone is named by what it holds, not by where it stands.
        "config": {**plain(config), "backbone": backbone.spec.partition(":")[0]},
        "protocol": config.protocol(max(1, config.epochs)).fingerprint,
        "revision": REVISION,
        "backbone": {"digest": backbone.digest, "bytes": backbone.bytes},
        "data": data.info.digest,
        "train": data.train.digest,
        "labels": source.fingerprint,
        "seed": seed,
        "execution": execution.identity,
    }


def _place(data: Dataset, config: HelloConfig, key: str, store: Store) -> Path:
    return store.labels(f"{data.info.name}-hello-{config.backbone.partition(':')[0]}", key)


def _projector(backbone: Backbone, info: DatasetInfo, config: HelloConfig) -> Projector:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # peft draws where low-rank updates begin
        base = text_head(backbone, info, config.prompt) if config.text and backbone.texts is not None else None
        return Projector(backbone, info, config, base)


def _begin_at_least_squares(
    projector: Projector, source: OnlineLabels, data: Dataset, config: HelloConfig, seed: int, execution: Execution,
    progress: Progress,
) -> None:  # fmt: skip
    """The head that best gives the teachers' mean logits from the backbone's features, on views of the real images."""
    source = source.to(execution.torch_device)
    features: list[Tensor] = []
    labels: list[Tensor] = []
    wanted = min(len(data.train), LEAST_SQUARES_VIEWS)
    progress.start(f"features of {data.info.name}", wanted)
    with torch.no_grad(), execution.autocast(), execution.deterministic():
        for batch in _views(data, config, seed, "least squares", execution):
            features.append(projector.features(batch.views).float().cpu())
            labels.append(source.logits(batch.views, batch.index).float().cpu())
            progress.advance(len(batch.index))
            if sum(len(one) for one in labels) >= wanted:
                break
    progress.finish()
    x, y = torch.cat(features), torch.cat(labels)
    scale = 1 / float(x.square().mean().sqrt().clamp_min(1e-6))
    projector.feature_scale.mul_(scale)
    weight, bias = least_squares(x * scale, y)
    projector.begin_at(weight.to(execution.torch_device), bias.to(execution.torch_device))


def _views(data: Dataset, config: HelloConfig, seed: int, purpose: str, execution: Execution) -> Iterable[Batch]:
    """Every training image once, augmented as the projector is trained."""
    plan = DrawnViews.of(config.protocol(1), data.train, data.info, 1, stream_seed(seed, "labeler", purpose))
    return Batches(data.train, data.info, execution.torch_device).epoch(plan, 0)


def likeness(
    projector: nn.Module,
    source: OnlineLabels,
    views: Iterable[Batch],
    execution: Execution,
    wanted: int = LIKENESS_VIEWS,
) -> float:
    """Mean cosine of a projector's logits and its teachers' mean ones, each less its mean over the classes.

    Of the first `wanted` views, to the end of a batch; 1 where students are told what the teachers would tell them.
    """
    source, found = source.to(execution.torch_device), []
    with torch.no_grad(), execution.autocast(), execution.deterministic():
        for batch in views:
            told, meant = projector(batch.views).float(), source.logits(batch.views, batch.index).float()
            told, meant = (one - one.mean(dim=1, keepdim=True) for one in (told, meant))
            found.append(F.cosine_similarity(told, meant).cpu())
            if sum(map(len, found)) >= wanted:
                break
    return float(torch.cat(found).mean())


def least_squares(x: Tensor, y: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] with the least |x w + b - y|^2 + n ridge |w|^2, for x [N, D] and y [N, C]."""
    centre, target = x.mean(dim=0), y.mean(dim=0)
    moments = (x - centre).double().T @ (x - centre).double()
    moments += ridge * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(moments, (x - centre).double().T @ (y - target).double()).T.float()
    return weight, target - weight @ centre


def _require(path: Path, key: str) -> None:
    if read_artifact(path, KIND, verify=False).meta["fingerprint"] != key:
        raise StoreError(
            f"{path} already holds another labeler (made with other settings, data or seed). Nothing is overwritten: "
            f"choose another --out, or move it away."
        )
