"""How a projector is taught on the real images. See `_hello`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
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
    fingerprint,
    plain,
    stream_seed,
    tell_found,
)
from softlabel.labels._hello import DELTA, KIND, HelloConfig, build_projector
from softlabel.labels._projector import Projector
from softlabel.labels._sources import OnlineLabels, online_labels
from softlabel.models import Backbone, absolute, load_backbone
from softlabel.store import (
    ArtifactWriter,
    FileCheckpoint,
    Store,
    is_complete,
    new_artifact,
    read_artifact,
    require_same,
)
from softlabel.training import (
    Batch,
    Batches,
    DrawnViews,
    Execution,
    Teacher,
    environment,
    fit,
    measure_accuracy,
)

REVISION = 2
"""Part of every labeler's identity: raised when a release makes other labels from the same settings."""
RIDGE = 1e-3
"""Of the least squares that a head begins at, times the mean square of the features."""
LEAST_SQUARES_VIEWS = 50_000
LIKENESS_VIEWS = 5_000


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
    config = config.of_any
    source = online_labels(teachers, data.info, execution)
    backbone = load_backbone(config.backbone, config.size or None)
    identity = identity_of(backbone, source, data, config, seed, execution)
    key, progress = fingerprint(identity), progress or Silent()
    path = out or _place(data, config, key, store)
    what = f"labeler {backbone.spec} on {data.info.name}"
    if is_complete(path):
        require_labeler(path, key)
        tell_found(progress, what)
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
        projector = build_projector(backbone, data.info, config)
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
                what=what,
            )
        keep_delta(writer, projector)
        views = _views(data.train, data.info, config, stream_seed(seed, "labeler", "likeness"), execution)
        meta |= {**accuracies(projector, data, execution), "likeness": likeness(projector, source, views, execution)}
        checkpoint.clear()
    return path


def labeler_path(
    data: Dataset,
    teachers: Sequence[Teacher],
    config: HelloConfig,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    out: Path | None = None,
) -> Path:
    """Where `train_labeler` with these arguments keeps, or will keep, its labeler.

    Raises:
        ConfigError, StoreError, TeacherMismatchError: as there.
    """
    backbone = load_backbone(config.backbone, config.size or None)
    identity = identity_of(backbone, online_labels(teachers, data.info, execution), data, config, seed, execution)
    path = out or _place(data, config, fingerprint(identity), store)
    if is_complete(path):
        require_labeler(path, fingerprint(identity))
    return path


def labeler_step_seconds(
    data: Dataset, teachers: Sequence[Teacher], config: HelloConfig, execution: Execution
) -> float:
    """How long a step of its training takes: measured on two of them, of which the second counts."""
    backbone = load_backbone(config.backbone, config.size or None)
    projector = build_projector(backbone, data.info, config)
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


def identity_of(
    backbone: Backbone, source: OnlineLabels, data: Dataset, config: HelloConfig, seed: int, execution: Execution
) -> dict[str, Any]:
    """All that the labels of a projector for any images depend on."""
    of_set = ("set_epochs", "offset_epochs", "refit")
    settings = {name: value for name, value in plain(config).items() if name not in of_set}
    return {
        # The backbone is named by what it holds, not by where it stands.
        "config": {**settings, "backbone": backbone.spec.partition(":")[0]},
        "protocol": config.protocol(max(1, config.epochs)).fingerprint,
        "revision": REVISION,
        "backbone": {"digest": backbone.digest, "bytes": backbone.bytes},
        "data": data.info.digest,
        "train": data.train.digest,
        "labels": source.fingerprint,
        "seed": seed,
        "execution": execution.identity,
    }


def place_name(data: Dataset, config: HelloConfig) -> str:
    """What the folders of these labelers begin with."""
    return f"{data.info.name}-hello-{config.backbone.partition(':')[0]}"


def _place(data: Dataset, config: HelloConfig, key: str, store: Store) -> Path:
    return store.labels(place_name(data, config), key)


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
        for batch in _views(data.train, data.info, config, stream_seed(seed, "labeler", "least squares"), execution):
            features.append(projector.features(batch.views).float().cpu())
            labels.append(source.logits(batch.views, batch.index).float().cpu())
            progress.advance(len(batch.index))
            if sum(len(one) for one in labels) >= wanted:
                break
    progress.finish()
    x, y = torch.cat(features), torch.cat(labels)
    if not (x.isfinite().all() and y.isfinite().all()):
        whose = "teachers" if x.isfinite().all() else f"backbone {config.backbone!r}"
        raise ConfigError(f"What the {whose} made of the training images is no finite number. Choose another.")
    scale = 1 / float(x.square().mean().sqrt().clamp_min(1e-6))
    projector.feature_scale.mul_(scale)
    weight, bias = least_squares(x * scale, y)
    projector.begin_at(weight.to(execution.torch_device), bias.to(execution.torch_device))


def _views(split: Split, info: DatasetInfo, config: HelloConfig, seed: int, execution: Execution) -> Iterable[Batch]:
    """Every training image once, augmented as the projector is trained."""
    plan = DrawnViews.of(config.protocol(1), split, info, 1, seed)
    return Batches(split, info, execution.torch_device).epoch(plan, 0)


def keep_delta(writer: ArtifactWriter, projector: Projector) -> None:
    """Write a trained projector's delta down, and make the projector what was written."""
    delta = projector.delta()
    writer.write_tensors(DELTA, delta)
    projector.load_delta(delta)


def accuracies(projector: Projector, data: Dataset, execution: Execution) -> dict[str, Any]:
    """How good a projector is, as it is stored."""
    chosen = data.selection
    return {
        "test_accuracy": measure_accuracy(projector, data.test, data.info, execution),
        "selection_accuracy": measure_accuracy(projector, chosen, data.info, execution) if chosen else None,
        "parameters": sum(tensor.numel() for tensor in projector.delta().values()),
        "environment": environment(execution),
    }


def likeness(
    projector: nn.Module,
    source: OnlineLabels,
    views: Iterable[Batch],
    execution: Execution,
    wanted: int = LIKENESS_VIEWS,
    offsets: Tensor | None = None,
) -> float:
    """Mean cosine of a projector's logits and its teachers' mean ones, each less its mean over the classes.

    Of the first `wanted` views, to the end of a batch, with `offsets` [N, classes] for those of image i; 1 where
    students are told what the teachers would tell them.
    """
    source, found = source.to(execution.torch_device), []
    with torch.no_grad(), execution.autocast(), execution.deterministic():
        for batch in views:
            told, meant = projector(batch.views).float(), source.logits(batch.views, batch.index).float()
            told = told if offsets is None else told + offsets[batch.index]
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


def require_labeler(path: Path, key: str) -> None:
    """Raise StoreError when another labeler than that of `key` is kept at `path`."""
    require_same(path, KIND, read_artifact(path, KIND, verify=False).meta["fingerprint"], key)
