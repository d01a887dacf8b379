"""HeLlO (arXiv 2408.08201): labels made online by a projector of few stored bytes, in place of a teacher or of files.

The projector is trained on the real images against the mean logits of several weak teachers, checkpoints of one
trajectory, and the class: squared distance + `weight` x cross-entropy (its section 3). The paper does not give weight,
optimizer, epochs or prompt; ours are options. It adapts a CLIP ResNet's convolutions; here it is whatever linear layers
and full convolutions the backbone has, and a head without texts begins at least squares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    UnknownNameError,
    build_config,
    fingerprint,
    parse_spec,
    plain,
)
from softlabel.labels._numbers import NUMBERS
from softlabel.labels._projector import Projector, ProjectorConfig, text_head
from softlabel.losses import Loss
from softlabel.models import Backbone, load_backbone
from softlabel.store import read_artifact
from softlabel.training import Checks, Optimizer, Protocol, Schedule, Teacher

KIND = "labeler"
DELTA = "delta.safetensors"
OFFSETS = "offsets.safetensors"
OFFSET_CODEC = "int8"


@dataclass(frozen=True, kw_only=True)
class HelloConfig(ProjectorConfig):
    """How a projector is built and trained.

    Attributes:
        weight: of the cross-entropy beside the squared distance to the teachers' mean logits.
        epochs: over the real training images; 0 keeps the head that it begins at.
        batch, lr, decay: of AdamW; the rate falls to 0 as a cosine.
        views: augmentation of the images that it is trained on, a name in `softlabel.training.POLICIES`: best that of
            the students, whose views it will label. A backbone that never saw such views tells little of them.
        set_epochs: over the images of one distilled set, after those over the real ones; the labeler is then that
            set's (`train_set_labeler`; `train_labeler` looks at neither this nor the next).
        offset_epochs: of views of that set's images, over which the mean difference between the teachers' logits and
            the projector's is taken and stored per image, a byte per class; 0 stores none.
        refit: whether the head is fitted anew over the same views, to how those of one image differ: with enough
            views, labels are closer to the teachers' for no bytes more (where measured, students were no better).
    """

    weight: float = 0.1
    epochs: int = 2
    batch: int = 128
    lr: float = 1e-3
    decay: float = 1e-4
    views: str = "gift"
    set_epochs: int = 0
    offset_epochs: int = 0
    refit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "set_epochs", "offset_epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"A labeler's {name} must be 0 or more. Got {getattr(self, name)} instead.")
        if self.refit and self.offset_epochs < 2:
            raise ConfigError(
                f"A head is refitted to how the views of one image differ, with its offset: take offset_epochs "
                f"(--offset-epochs) of 2 or more, or no refit. Got {self.offset_epochs}."
            )
        if self.protocol(max(1, self.epochs)).mixes and self.offset_epochs:
            raise ConfigError(
                f"An offset per image is for views of one image, and the views {self.views!r} mix several. Take "
                f"others, or no offsets (offset_epochs of 0, set_epochs of 60)."
            )

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

    @property
    def of_set(self) -> bool:
        """Whether it asks for a labeler of one distilled set."""
        return bool(self.set_epochs or self.offset_epochs)

    @property
    def of_any(self) -> "HelloConfig":
        """The same for a labeler of any images."""
        return replace(self.without_offsets, set_epochs=0)

    @property
    def without_offsets(self) -> "HelloConfig":
        """The same before any offset is taken."""
        return replace(self, offset_epochs=0, refit=False)

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


def weak_stops(epochs: Sequence[int]) -> tuple[int, ...]:
    """Of the epochs that a trajectory kept, those of weak teachers: half way, three quarters of it, and the last.

    Where one is missing, the nearest of the last half; an early one would teach less than it costs. HeLlO takes nine of
    one trajectory, and tunes which; three cost a third of that in every step.
    """
    last = max(epochs)
    late = [epoch for epoch in epochs if 2 * epoch >= last]
    wanted = (round(last * share) for share in (0.5, 0.75, 1.0))
    return tuple(dict.fromkeys(min(late, key=lambda epoch: abs(epoch - one)) for one in wanted))


def check_projector(config: HelloConfig, info: DatasetInfo) -> None:
    """Build the untrained projector once: whatever it lacks is told before teachers are trained for it.

    Raises:
        ConfigError, MissingExtraError: as `train_labeler`.
    """
    build_projector(load_backbone(config.backbone, config.size or None), info, config)


def stand_in_labeler(data: Dataset, config: HelloConfig) -> Teacher:
    """An untrained projector, which labels at the cost of a trained one."""
    backbone = load_backbone(config.backbone, config.size or None)
    projector = build_projector(backbone, data.info, config)
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
    projector = build_projector(backbone, info, config)
    projector.load_delta(artifact.tensors(DELTA))
    projector.merge()
    projector.eval().requires_grad_(False)
    offsets = None
    if OFFSETS in artifact.files:
        offsets = NUMBERS[OFFSET_CODEC].unpack(artifact.tensors(OFFSETS), info.classes)
    return Teacher(
        model=projector,
        info=info,
        arch=f"hello:{backbone.spec}",
        fingerprint=fingerprint(meta["fingerprint"], "labeler"),
        accuracy=meta["test_accuracy"],
        epoch=config.epochs,
        size=artifact.bytes_of(DELTA) + artifact.bytes_of(OFFSETS),
        public=backbone.bytes,
        of_set=meta.get("set", ""),
        offsets=offsets,
    )


def labeler_features(labeler: Teacher) -> Callable[[Tensor], Tensor]:
    """What a labeler's head sees, [B, D] of normalised images [B, C, H, W].

    Raises:
        ConfigError: a teacher that is no labeler.
    """
    if not isinstance(labeler.model, Projector):
        raise ConfigError(f"The teacher {labeler.arch!r} is no labeler. Make one with softlabel labeler.")
    return labeler.model.features


def build_projector(backbone: Backbone, info: DatasetInfo, config: HelloConfig) -> Projector:
    """The untrained projector of these settings, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # peft draws where low-rank updates begin
        base = text_head(backbone, info, config.prompt) if config.text and backbone.texts is not None else None
        return Projector(backbone, info, config, base)
