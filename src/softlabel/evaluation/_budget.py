"""Which labels to store for a number of bytes: the best of a quick pilot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from softlabel.core import ConfigError, Dataset, DistilledSet, Progress, SoftlabelError, Split, human_bytes, stream
from softlabel.evaluation._student_views import student_views
from softlabel.evaluation._students import Job, train_students
from softlabel.labels import SEED_BYTES, SHARD_ROWS, Codec, LabelSpec, OnlineLabels, read_labels
from softlabel.store import Store
from softlabel.training import Checks, Execution, Protocol

PILOT_EPOCHS = 60
"""What tells labels apart: a pilot trains for no longer."""
JUDGES = 2000
"""Real images that judge the pilot's students: never the test split."""
FILE_BYTES = 600
"""What a file of labels needs beside them, at most."""
POOLS = (1, 3, 10, 30)
"""How many times fewer epochs of labels than of training the candidates have."""
CODECS = (
    *("fp16", "int8", "int4", "topk:k=2", "topk:k=2,fill=smooth", "topk:k=5,fill=smooth+int8"),
    *("lowrank:rank=4", "vq:parts=2", "vq:parts=4,hidden=32"),
)
"""Of few numbers 16 bits each are no more than 8 bits and a scale, which take four bytes more."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Labels that fit into the budget, and what they were worth in the pilot.

    Attributes:
        spec: of labels that softlabel label keeps.
        bytes: of these labels, for the whole training.
        accuracy: of the pilot's student on real training images, in 0..1.
    """

    spec: LabelSpec
    bytes: int
    accuracy: float


def label_candidates(distilled: DistilledSet, protocol: Protocol, budget: int) -> list[tuple[LabelSpec, int]]:
    """Every spec that fits into `budget` bytes and serves the protocol's loss, with its bytes; the largest first.

    Raises:
        ConfigError: nothing is as small as that; the message says what the smallest would need.
    """
    classes, found, least = distilled.info.classes, [], None
    whole = replace(protocol, labels="replay", label_epochs=0)  # of which a protocol's own pool is a part
    for codec_spec in CODECS:
        codec = Codec.parse(codec_spec)
        try:
            codec.check(classes)
            whole.require_space(codec.space)
        except ConfigError:  # too few classes for it, or not for this loss
            continue
        if not codec.saves(classes):
            continue
        for pool in POOLS:
            epochs = max(1, round(whole.labelled_epochs / pool))
            rows, shared = epochs * len(distilled), codec.shared_bytes(classes)
            files = -(-rows // SHARD_ROWS) + (shared > 0)
            size = rows * codec.row_bytes(classes) + shared + SEED_BYTES + files * FILE_BYTES
            spec = LabelSpec("replay", codec=codec, epochs=epochs)
            least = min(least or (size, spec.spec), (size, spec.spec))
            if size <= budget and (spec, size) not in found:
                found.append((spec, size))
    if not found:
        told = f"the smallest labels per view, {least[1]}, need {human_bytes(least[0])}" if least else "no codec serves"
        raise ConfigError(
            f"A budget of {human_bytes(budget)} holds no labels for {len(distilled)} images of {classes} classes: "
            f"{told}. Raise --budget, or take one label per image (--labels fixed)."
        )
    return sorted(found, key=lambda one: -one[1])


def pilot_epochs(protocol: Protocol) -> int:
    """For how many epochs `pilot` trains each of its students."""
    return min(protocol.epochs, PILOT_EPOCHS)


def pilot(
    candidates: Sequence[tuple[LabelSpec, int]],
    source: OnlineLabels,
    distilled: DistilledSet,
    data: Dataset,
    *,
    protocol: Protocol,
    student: str,
    seed: int = 0,
    execution: Execution,
    store: Store,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Train a student on every candidate, for a fifth of the epochs or so, and judge it on real training images.

    A pool of labels is shortened like the training. The best first; of equally good ones the smaller.

    Args:
        data: real data; its selection split judges, or train images that are not in the set, nor what its images were
            made from where the set tells; its test split is not looked at.
        seed: of students and views.
    """
    epochs = pilot_epochs(protocol)
    share = epochs / protocol.epochs
    judge = _judges(data, distilled, seed)
    found = []
    for spec, size in candidates:
        short = replace(
            protocol.with_epochs(epochs), labels="replay", label_epochs=max(1, round(spec.epochs * share)),
            checks=Checks(count=1),
        )  # fmt: skip
        labels = read_labels(
            source, spec, distilled, regime="replay", plan=student_views(distilled, short, seed),
            epochs=short.labelled_epochs, execution=execution,
        )  # fmt: skip
        job = Job(protocol=short, student=student, labels=labels, arm=spec.spec)
        [record] = train_students(
            distilled, [job], data=judge, seed=seed, execution=execution, store=store, progress=progress
        )
        if isinstance(record, SoftlabelError):
            raise record
        found.append(Candidate(spec=spec, bytes=size, accuracy=record["accuracy"]["final"]))
    return sorted(found, key=lambda one: (-one.accuracy, one.bytes))


def _judges(data: Dataset, distilled: DistilledSet, seed: int) -> Dataset:
    """`data` with a sample of its selection split in place of the test split, or of train images not in the set.

    Raises:
        ConfigError: every real image is in the set.
    """
    split = data.selection
    if split is None:
        known = _sources(distilled)
        taken = {image.numpy().tobytes() for image in distilled.images}
        left = [
            place
            for place, image in enumerate(data.train.images)
            if place not in known and image.numpy().tobytes() not in taken
        ]
        if not left:
            raise ConfigError("No real image is left to judge a pilot: all are in the set. Take --selection 0.1.")
        split = Split(data.train.images[left], data.train.targets[left])
    order = torch.randperm(len(split), generator=stream(seed, "pilot"))[:JUDGES].sort().values
    return replace(data, test=Split(split.images[order], split.targets[order]), selection=None)


def _sources(distilled: DistilledSet) -> set[int]:
    """Positions in the train split of the images that a set was made from, where its method tells them."""
    told = distilled.provenance
    index = told.get("train_indices") or told.get("train_indices_by_rank") or []
    return set(torch.tensor(index, dtype=torch.int64).flatten().tolist())
