"""Codecs: how soft labels are written down in few bytes, and what is lost by it.

A codec is a structure, which says what of a label is kept, and numbers, which say how: `topk:k=4+int8`. Structures that
are learned (`lowrank`, `vq`) are fitted to a sample of labels first, and what they learned is stored once for all rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from softlabel.core import ConfigError, Option, UnknownNameError, build_config, format_spec, parse_spec
from softlabel.labels._numbers import NUMBERS, Layout, Rows
from softlabel.labels._structures import STRUCTURES, Dense, Shared, Structure, VectorQuantised


def _shown(entry: type[Structure]) -> str:
    options = {item.name: item.default for item in fields(entry)}
    return f"{entry.summary} [{format_spec('', options)[1:]}]" if options else entry.summary  # type: ignore[arg-type]


CODECS = {name: _shown(entry) for name, entry in STRUCTURES.items()} | {
    name: entry.summary for name, entry in NUMBERS.items()
}
"""What a codec is made of, with a line for people: one structure, one kind of numbers, or both."""


@dataclass(frozen=True)
class Codec:
    """A structure and numbers: `Codec.parse("topk:k=4+int8")`; `fp16` alone is dense."""

    structure: Structure = field(default_factory=Dense)
    numbers: str = "fp16"

    @classmethod
    def parse(cls, spec: str) -> "Codec":
        """Read a codec's spec: a structure, numbers, or both, joined by `+`.

        Raises:
            UnknownNameError: nothing of that name.
            ConfigError: two of a kind, an option that does not exist, or one out of range.
        """
        structure: Structure | None = None
        numbers: str | None = None
        for part in spec.split("+"):
            name, options = parse_spec(part.strip())
            if name not in CODECS:
                raise UnknownNameError("codec", name, CODECS)
            if name in STRUCTURES and structure is None:
                structure = build_config(STRUCTURES[name], options, f"the codec {name!r}")
            elif name in NUMBERS and numbers is None and not options:
                numbers = name
            elif name in NUMBERS and options:
                raise ConfigError(f"The numbers {name!r} of a codec have no options. Got {part!r}.")
            else:
                raise ConfigError(f"A codec has one structure and one kind of numbers. Got {spec!r}.")
        if isinstance(structure, VectorQuantised) and numbers is not None:
            raise ConfigError(f"The codec vq stores code numbers, which {numbers} cannot change. Leave it out.")
        return cls(structure or Dense(), numbers or "fp16")

    @property
    def spec(self) -> str:
        """As short as it can be written: options that have their defaults are left out, and so is `dense`."""
        options = {item.name: getattr(self.structure, item.name) for item in fields(self.structure)}
        changed = {
            item.name: options[item.name] for item in fields(self.structure) if options[item.name] != item.default
        }
        return self.numbers if isinstance(self.structure, Dense) else self._written(changed)

    @property
    def identity(self) -> str:
        """With every option written out: for fingerprints, which must change when a default does."""
        return self._written({item.name: getattr(self.structure, item.name) for item in fields(self.structure)})

    def _written(self, options: Mapping[str, Option]) -> str:
        name = next(name for name, entry in STRUCTURES.items() if entry is type(self.structure))
        shown = format_spec(name, options)
        return shown if isinstance(self.structure, VectorQuantised) else f"{shown}+{self.numbers}"

    @property
    def space(self) -> str:
        return self.structure.space

    def layout(self, classes: int) -> Layout:
        """Type and width of every tensor that is stored of a label of so many classes."""
        width = self.structure.width(classes)
        numbers = NUMBERS[self.numbers].layout(width) if width else {}
        return {**numbers, **self.structure.layout(classes)}

    def saves(self, classes: int) -> bool:
        """Whether its numbers take fewer bytes per label than 16 bits each would: 8 and 4 bits have a scale, too."""
        return self.numbers == "fp16" or self.row_bytes(classes) < replace(self, numbers="fp16").row_bytes(classes)

    def row_bytes(self, classes: int) -> int:
        """Bytes of one label, without what all share."""
        return sum(dtype.itemsize * width for dtype, width in self.layout(classes).values())

    def shared_bytes(self, classes: int) -> int:
        """Bytes of what all labels of so many classes share."""
        return self.structure.shared_bytes(classes)

    def check(self, classes: int) -> None:
        """Raise ConfigError when labels of so many classes do not fit this codec."""
        self.structure.check(classes)

    def fit(self, sample: Tensor, *, seed: int = 0) -> "FittedCodec":
        """This codec, ready for labels like those of `sample`, float32 logits [S, C].

        Raises:
            ConfigError: labels of so many classes do not fit it.
        """
        classes = sample.shape[1]
        self.check(classes)
        with torch.autocast(sample.device.type, enabled=False):  # labels may be read within a training's
            return FittedCodec(self, classes, self.structure.fit(sample.float(), seed))


@dataclass(frozen=True)
class FittedCodec:
    """A codec for labels of so many classes, with what all of them share.

    Attributes:
        shared: stored once; empty for codecs that learn nothing.
    """

    codec: Codec
    classes: int
    shared: Shared

    @property
    def stored(self) -> Shared:
        """What decoding needs of it, and files keep; an encoder's weights (their names begin with `_`) are left out."""
        return {name: tensor for name, tensor in self.shared.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> "FittedCodec":
        return replace(self, shared={name: tensor.to(device) for name, tensor in self.shared.items()})

    def encode(self, logits: Tensor, *, target: Tensor) -> Rows:
        """What is stored of labels [R, C] of images of the classes `target` [R]."""
        with torch.autocast(logits.device.type, enabled=False):
            numbers, beside = self.codec.structure.split(logits.float(), target, self.shared)
        packed = NUMBERS[self.codec.numbers].pack(numbers) if numbers.shape[1] else {}
        return {**packed, **beside}

    def decode(self, rows: Rows, *, target: Tensor) -> Tensor:
        """float32 [R, C] in the codec's `space` (probabilities as logarithms), from what was stored."""
        width = self.codec.structure.width(self.classes)
        some = next(iter(rows.values()))
        numbers = NUMBERS[self.codec.numbers].unpack(rows, width) if width else some.new_empty(0)
        with torch.autocast(some.device.type, enabled=False):
            return self.codec.structure.join(numbers, rows, target, self.shared, self.classes)
