"""The views that stored labels were made for: written down as numbers, or as the seed that they are drawn from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softlabel.core import ConfigError, StoreError, tensor_fingerprint
from softlabel.training import Drawn, DrawnViews, ViewPlan
from softlabel.views import ViewParams, from_tensors, to_tensors

VIEWS = {
    "stored": "every number of every view: whoever reads them needs no random numbers of ours",
    "seed": "the seed alone, eight bytes: views are drawn again, and compared with fingerprints",
}
INDEX, SIZES, KINDS, SHAPE = "index", "sizes", "kinds", "shape"
PARTNER = ".partner"
SHARDS_KEPT = 4
_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


def written_views(epochs: Sequence[Sequence[Drawn]]) -> dict[str, Tensor]:
    """The batches of some epochs as tensors: image indices [rows], batch sizes, and all numbers of the views.

    Some policies draw one of several operations per batch. Batches with the same operations are of one kind, and the
    numbers of a kind stand together, as `KIND/POSITION.OP.VALUE`.
    """
    batches = [drawn for epoch in epochs for drawn in epoch]
    parts: dict[tuple[str, ...], list[dict[str, Tensor]]] = {}
    kinds = []
    for drawn in batches:
        tensors = to_tensors(drawn.params)
        tensors.pop(SHAPE)
        parts.setdefault(tuple(sorted(tensors)), []).append(tensors)
        kinds.append(list(parts).index(tuple(sorted(tensors))))
    numbers = {
        f"{kind}/{name}": _small(torch.cat([one[name] for one in some]))
        for kind, (names, some) in enumerate(parts.items())
        for name in names
    }
    first = batches[0].params
    return {
        **numbers,
        INDEX: _small(torch.cat([drawn.index for drawn in batches])),
        SIZES: torch.tensor([len(drawn.index) for drawn in batches], dtype=torch.int32),
        KINDS: torch.tensor(kinds, dtype=torch.uint8),
        SHAPE: torch.tensor([first.height, first.width], dtype=torch.int32),
    }


def read_views(tensors: Mapping[str, Tensor], images: int, first: int) -> list[list[Drawn]]:
    """The inverse of `written_views`, epoch by epoch of so many `images`, of which the first is epoch `first`."""
    index, row = tensors[INDEX].long(), 0
    read: dict[int, int] = {}  # rows of every kind that were read
    epochs: list[list[Drawn]] = []
    for size, kind in zip(tensors[SIZES].tolist(), tensors[KINDS].tolist(), strict=True):
        if row % images == 0:
            epochs.append([])
        start = read.get(kind, 0)
        read[kind] = start + size
        prefix = f"{kind}/"
        part = {
            name.removeprefix(prefix): _wide(tensor[start : start + size])
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        part[SHAPE] = torch.tensor([size, *tensors[SHAPE].tolist()])
        rows = slice(first * images + row, first * images + row + size)
        epochs[-1].append(Drawn(index[row : row + size], from_tensors(part), rows))
        row += size
    return epochs


def fingerprint_of(batches: Sequence[Drawn]) -> str:
    """Names the views of an epoch by all their numbers."""
    tensors = [t for drawn in batches for t in (drawn.index, *(v for _, v in sorted(to_tensors(drawn.params).items())))]
    return tensor_fingerprint(*tensors)


@dataclass(frozen=True)
class CheckedViews:
    """Views drawn again from a seed, refused when they are not those that labels were made for.

    Attributes:
        fingerprints: `fingerprint_of` every epoch.
    """

    drawn: DrawnViews
    fingerprints: tuple[str, ...]

    def steps(self, epoch: int) -> int:
        return self.drawn.steps(epoch)

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        batches = list(self.drawn.epoch(epoch))
        if fingerprint_of(batches) != self.fingerprints[epoch]:
            raise StoreError(
                f"The views of epoch {epoch + 1} come out differently from those that the labels were made for: this "
                f"version of torch draws other numbers from the same seed. Use the version that made the labels, or "
                f"make them again (softlabel label, with --views stored to be safe from this)."
            )
        return iter(batches)


@dataclass(frozen=True, eq=False)
class WrittenViews:
    """Views that were stored as numbers.

    Attributes:
        shards: (first epoch, its tensors), ascending; an epoch is in one of them.
        images: of an epoch.
        kept: shards that were read.
    """

    shards: tuple[tuple[int, dict[str, Tensor]], ...]
    images: int
    kept: dict[int, list[list[Drawn]]] = field(default_factory=dict)

    def steps(self, epoch: int) -> int:
        return len(self._of(epoch))

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        return iter(self._of(epoch))

    def _of(self, epoch: int) -> list[Drawn]:
        place = max(i for i, (first, _) in enumerate(self.shards) if first <= epoch)
        return self._read(place)[epoch - self.shards[place][0]]

    def _read(self, place: int) -> list[list[Drawn]]:
        """The epochs of a shard; the last few shards are kept."""
        if place not in self.kept:
            while len(self.kept) >= SHARDS_KEPT:
                self.kept.pop(next(iter(self.kept)))
            first, tensors = self.shards[place]
            self.kept[place] = read_views(tensors, self.images, first)
        return self.kept[place]


@dataclass(frozen=True)
class RegroupedViews:
    """The views of another plan in batches of another size; those that were mixed stay with their partners.

    Attributes:
        batch: images per batch. Views that are mixed within their batches allow multiples of the size they have.
    """

    source: ViewPlan
    batch: int

    def steps(self, epoch: int) -> int:
        return len(self._regrouped(epoch))

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        return iter(self._regrouped(epoch))

    def _regrouped(self, epoch: int) -> list[Drawn]:
        batches = list(self.source.epoch(epoch))
        tensors = _joined([drawn.params for drawn in batches])
        index, row = torch.cat([drawn.index for drawn in batches]), batches[0].rows.start
        first = batches[0].params
        found: list[Drawn] = []
        for start, stop in _bounds(len(index), self.batch):
            part = {name: tensor[start:stop] for name, tensor in tensors.items()}
            part = {name: tensor - start if name.endswith(PARTNER) else tensor for name, tensor in part.items()}
            part[SHAPE] = torch.tensor([stop - start, first.height, first.width])
            found.append(Drawn(index[start:stop], from_tensors(part), slice(row + start, row + stop)))
        return found


def regrouped(plan: ViewPlan, batch: int, per_batch: bool = False) -> ViewPlan:
    """`plan` in batches of that size; itself where they have it.

    Args:
        per_batch: every batch has operations of its own.

    Raises:
        ConfigError: views that another batch size would change.
    """
    batches = list(plan.epoch(0))
    sizes = [len(drawn.index) for drawn in batches]
    if [stop - start for start, stop in _bounds(sum(sizes), batch)] == sizes:
        return plan
    if per_batch:
        raise ConfigError(
            f"The labels were made for views of which every batch has operations of its own, and can be replayed in "
            f"the batches of {sizes[0]} that they were made in alone. Got {batch}: take the protocol that they were "
            f"made for."
        )
    if batches[0].params.mix is not None and (batch < sizes[0] or batch % sizes[0]):
        raise ConfigError(
            f"The labels were made for views that are mixed within batches of {sizes[0]}, and can be replayed in "
            f"batches of {sizes[0]}, {2 * sizes[0]}, {3 * sizes[0]} and so on. Got {batch}: take another protocol, or "
            f"make labels for this one."
        )
    return RegroupedViews(plan, batch)


def _bounds(images: int, batch: int) -> list[tuple[int, int]]:
    """Where batches begin and end; a single image left over joins the last one, as when they are drawn."""
    starts = list(range(0, images, batch))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def _joined(params: Sequence[ViewParams]) -> dict[str, Tensor]:
    """Views of several batches with the same operations as one; a partner is counted from the first image of all."""
    found: dict[str, list[Tensor]] = {}
    start = 0
    for one in params:
        tensors = to_tensors(one)
        tensors.pop(SHAPE)
        for name, tensor in tensors.items():
            found.setdefault(name, []).append(tensor + start if name.endswith(PARTNER) else tensor)
        start += one.batch
    return {name: torch.cat(parts) for name, parts in found.items()}


def _small(tensor: Tensor) -> Tensor:
    """Whole numbers in the smallest type that holds them."""
    if tensor.is_floating_point() or tensor.dtype == torch.bool or not tensor.numel():
        return tensor
    low, high = int(tensor.min()), int(tensor.max())
    return tensor.to(next(t for t in _INTEGERS if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor.long()
