"""Labels as configuration: a regime, edits and a codec in one string."""

import os
from dataclasses import dataclass

from softlabel.core import ConfigError, UnknownNameError, parse_spec
from softlabel.labels._codecs import CODECS, Codec
from softlabel.labels._edits import EDITS, Edit
from softlabel.training import REGIMES, Protocol


@dataclass(frozen=True)
class LabelSpec:
    """What labels a student gets: `fixed+temper:temperature=2+keep:top=4`, or `replay:epochs=30+topk:k=4+int8`.

    Attributes:
        regime: a name in `softlabel.training.REGIMES`; None is the protocol's.
        edits: applied to the labels in their order.
        codec: how the labels are stored; None where they are not, and `replay` then has 16-bit floats. Of `online`
            labels, how the teacher's weights are: fp16.
        epochs: for how many epochs labels are stored, of `replay`; 0 for each (`Protocol.label_epochs`).
    """

    regime: str | None = None
    edits: tuple[Edit, ...] = ()
    codec: Codec | None = None
    epochs: int = 0

    @classmethod
    def parse(cls, spec: str) -> "LabelSpec":
        """Read a regime, edits or a codec, or a regime and one of these, joined by `+`.

        Raises:
            UnknownNameError: no such regime, edit or codec.
            ConfigError: an option that does not exist or is out of range, edits together with a codec, or a codec for
                labels that are not stored.
        """
        parts = [part.strip() for part in spec.split("+")]
        regime, epochs = _regime(parts[0])
        parts = parts[regime is not None :]
        names = [part.partition(":")[0] for part in parts]
        if "" in names:
            raise ConfigError(
                f"Labels are a regime, edits or codecs, joined by +. Got {spec!r}, where one has no name."
            )
        for name in names:
            if name not in EDITS and name not in CODECS:
                if regime is None and os.sep in spec:
                    raise ConfigError(
                        f"There are no labels at {spec}. Make them with softlabel label, or check the path."
                    )
                known = [*EDITS, *CODECS] if regime else [*REGIMES, *EDITS, *CODECS]
                hint = "" if regime else "Where a command takes a folder of labels, nothing is there."
                raise UnknownNameError("label regime, edit or codec", name, known, hint)
        if not parts:
            return cls(regime, codec=Codec() if regime == "replay" else None, epochs=epochs)
        if all(name in EDITS for name in names):
            found = cls(regime, tuple(Edit.parse(part) for part in parts))
        elif any(name in EDITS for name in names):
            raise ConfigError(f"Labels are edited or stored by a codec, not both. Got {spec!r}.")
        else:
            found = cls(regime, codec=Codec.parse("+".join(parts)), epochs=epochs)
        if regime is not None:
            found.require_regime(regime)
        return found

    @property
    def spec(self) -> str:
        regime = f"{self.regime}:epochs={self.epochs}" if self.epochs else self.regime
        parts = [*([regime] if regime else []), *(edit.spec for edit in self.edits)]
        return "+".join([*parts, *([self.codec.spec] if self.codec else [])])

    def space(self, given: str) -> str:
        """The space (`core.LabelSource`) of the labels that come of labels in the space `given`."""
        if self.edits:
            return "probabilities"
        return self.codec.space if self.codec is not None and given == "logits" else given

    def require_regime(self, regime: str) -> None:
        """Raise ConfigError when the edits or the codec are not for labels of a regime, the spec's or a protocol's."""
        if self.edits and regime == "hard":
            raise ConfigError(f"Edits are for a teacher's labels, and hard ones are nobody's. {self._as_made}")
        if self.edits and regime == "replay":
            raise ConfigError(f"Edits are for labels as they are made, and replayed ones are stored. {self._as_made}")
        if self.codec is not None and (regime == "hard" or (regime == "online" and self.codec != Codec())):
            raise ConfigError(
                f"A codec says how labels are stored, and {regime} labels are not. Take fixed (one per image) or "
                f"replay (one per view), as in replay+{self.codec.spec}; or online+fp16, a teacher of 16-bit weights. "
                f"Got {self.spec!r}."
            )

    @property
    def _as_made(self) -> str:
        edits = "+".join(edit.spec for edit in self.edits)
        return f"Take fixed or online, as in online+{edits}. Got {self.spec!r}."

    def require(self, protocol: Protocol) -> None:
        """Raise ConfigError when the edits or the codec are not for labels as `protocol` has them.

        An edit by an image's class has none on a view of several images, whose label is the teacher's of that view.
        """
        self.require_regime(protocol.labels)
        for edit in self.edits:
            if edit.by_class and protocol.labels == "online" and protocol.mixes:
                raise ConfigError(
                    f"The edit {edit.spec!r} goes by an image's class, and the views of the protocol {protocol.name!r} "
                    f"mix images. Take fixed labels (fixed+{edit.spec}), another edit or another protocol."
                )

    def check(self, classes: int) -> None:
        """Raise ConfigError when an edit or the codec does not fit labels of so many classes."""
        for edit in self.edits:
            edit.require_classes(classes)
        if self.codec is not None:
            self.codec.check(classes)


def _regime(part: str) -> tuple[str | None, int]:
    """A regime and the epochs that it is for; (None, 0) for what is no regime.

    Raises:
        ConfigError: an option that the regime does not have.
    """
    name, options = parse_spec(part)
    if name not in REGIMES:
        return None, 0
    given = name == "replay" and "epochs" in options
    epochs = options.pop("epochs") if given else 0
    whole = isinstance(epochs, int) and not isinstance(epochs, bool) and epochs >= int(given)
    if options or not whole:
        known = "the option epochs, a whole number of 1 or more" if name == "replay" else "no options"
        raise ConfigError(f"The label regime {name!r} has {known}. Got {part!r} instead.")
    return name, int(epochs)
