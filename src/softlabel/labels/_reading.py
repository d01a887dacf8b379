"""Label sources that read another one: what it said, and the same reading of something that says the same."""

from dataclasses import replace

from softlabel.core import DistilledSet, LabelSource
from softlabel.labels._codecs import Codec
from softlabel.labels._coded import CodedLabels, coded_labels
from softlabel.labels._edits import EditedLabels, edited_labels
from softlabel.labels._sources import OnlineLabels, in_half, online_labels
from softlabel.labels._spec import LabelSpec
from softlabel.training import DrawnViews, Execution


def read_labels(
    source: LabelSource,
    spec: LabelSpec,
    distilled: DistilledSet,
    *,
    regime: str,
    plan: DrawnViews,
    epochs: int,
    execution: Execution,
) -> LabelSource:
    """`source` as a spec says: as it is, edited, as a codec gives it back, or from teachers of 16-bit weights.

    Args:
        regime: of the labels, where the spec names none; `replay` without a codec has 16-bit floats.
        plan: the views of the training.
        epochs: of the training.

    Raises:
        ConfigError: an edit or a codec that does not fit the regime or the number of classes.
    """
    spec.require_regime(regime)
    if regime == "online" and spec.codec is not None and isinstance(source, OnlineLabels):
        halved = [in_half(teacher) for teacher in source.teachers]
        return online_labels(halved, source.info, execution, distilled=distilled)
    codec = spec.codec or (Codec() if regime == "replay" else None)
    if codec is not None:
        return coded_labels(source, codec, distilled, plan, epochs, execution)
    return edited_labels(source, spec.edits, distilled)


def unread(labels: LabelSource) -> LabelSource:
    """What `labels` are before any edits and codecs."""
    return labels.source if isinstance(labels, EditedLabels | CodedLabels) else labels


def read_from(labels: LabelSource, source: LabelSource | None) -> LabelSource:
    """`labels` over another source that says the same, such as a replay; None leaves them."""
    if source is None:
        return labels
    return replace(labels, source=source) if isinstance(labels, EditedLabels | CodedLabels) else source
