"""Which views a student sees: those of its seed, or those that stored labels were made for."""

from collections.abc import Sequence

from softlabel.core import ConfigError, DistilledSet, LabelSource, stream_seed
from softlabel.labels import LabelStore
from softlabel.training import DrawnViews, Protocol, ViewPlan, plan_of


def student_views(distilled: DistilledSet, protocol: Protocol, seed: int) -> DrawnViews:
    """The views that a student of that seed sees of a set under a protocol."""
    split = distilled.split
    return DrawnViews.of(protocol, split, distilled.info, distilled.factor, stream_seed(seed, "student"))


def stored_plan(
    stored: LabelStore | None, labels: Sequence[LabelSource], protocol: Protocol, distilled: DistilledSet, seed: int
) -> ViewPlan | None:
    """The views of a label store as a training of students goes through them; None where its labels are not used.

    Views of a store go with its labels alone: they are part of the labels' fingerprint, and of nothing else.

    Args:
        labels: of every student.

    Raises:
        ConfigError: some of the students use the store's labels and some do not, or its views are another protocol's.
    """
    using = [one is stored.labels for one in labels] if stored is not None else []
    if stored is None or not any(using):
        return None
    if not all(using):
        raise ConfigError("Students on stored labels see the views of the store: train the others apart.")
    return plan_of(
        protocol,
        distilled.split,
        distilled.info,
        distilled.factor,
        stream_seed(seed, "student"),
        labelled=stored.views_for(protocol, distilled),
        epochs=stored.epochs,
    )
