"""Labels as configuration: a regime and edits in one string."""

from dataclasses import dataclass

from softlabel.core import UnknownNameError
from softlabel.labels._edits import EDITS, Edit
from softlabel.training import REGIMES


@dataclass(frozen=True)
class LabelSpec:
    """What labels a student gets: `LabelSpec.parse("fixed+temper:temperature=2+keep:top=4")`.

    Attributes:
        regime: a name in `softlabel.training.REGIMES`; None is the protocol's.
        edits: applied to the labels in their order.
    """

    regime: str | None = None
    edits: tuple[Edit, ...] = ()

    @classmethod
    def parse(cls, spec: str) -> "LabelSpec":
        """Read a regime, edits, or both, joined by `+`.

        Raises:
            UnknownNameError: no such regime or edit.
            ConfigError: an option that does not exist or is out of range.
        """
        first, *rest = spec.split("+")
        name = first.strip()
        if name in REGIMES:
            return cls(name, tuple(Edit.parse(part) for part in rest))
        if name.partition(":")[0] not in EDITS:
            raise UnknownNameError("label regime or edit", name, [*REGIMES, *EDITS])
        return cls(None, tuple(Edit.parse(part) for part in spec.split("+")))

    @property
    def spec(self) -> str:
        return "+".join([*([self.regime] if self.regime else []), *(edit.spec for edit in self.edits)])
