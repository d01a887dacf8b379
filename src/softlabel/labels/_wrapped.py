"""A label source around another one."""

from dataclasses import dataclass

from softlabel.core import LabelSource


@dataclass(frozen=True)
class WrappedLabels:
    """What a source around `source` shares with it: all but the logits."""

    source: LabelSource

    @property
    def regime(self) -> str:
        return self.source.regime

    @property
    def space(self) -> str:
        return self.source.space

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def label_bytes(self) -> int:
        return self.source.label_bytes

    @property
    def labeler_bytes(self) -> int:
        return self.source.labeler_bytes
