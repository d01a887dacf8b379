"""softlabel label: soft labels kept beside a distilled set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from softlabel.cli._options import Data, Machine, Session, Teachers
from softlabel.cli._output import print_json, print_table
from softlabel.core import ConfigError, DistilledSet, count_of, fingerprint, human_bytes, parse_bytes
from softlabel.evaluation import find_protocol, label_candidates, pilot, pilot_epochs, read_given
from softlabel.labels import (
    SEED_BYTES,
    Codec,
    LabelSpec,
    OnlineLabels,
    fixed_labels,
    online_labels,
    save_labels,
    write_label_store,
)
from softlabel.store import Store, read_artifact
from softlabel.training import Execution, check_teacher, warn_if_weaker

Candidates = list[tuple[LabelSpec, int]]
"""Labels that fit into a budget, with their bytes."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Keep soft labels of a distilled set: one per image, or one per view of a training, in a store to be replayed.

    Example: softlabel label DISTILLED --teacher PATH --labels replay+topk:k=4+int8 --protocol gift --epochs 300
    """

    distilled: tyro.conf.Positional[Path]
    """Folder of a distilled set, or of images in one sub-folder per class."""
    labels: str = "fixed"
    """fixed: the teachers' mean logits on the images as they are; replay: on every view, with a codec as in
    replay+topk:k=4+int8. See: softlabel ls codecs"""
    protocol: str = "gift"
    """For replay: whose views. See: softlabel ls protocols"""
    epochs: int | None = None
    """For replay: of views. Default: the protocol's. A store that has fewer is grown."""
    views: str = "stored"
    """For replay: stored (every number of every view), or seed (they are drawn again)."""
    seed: int = 0
    """For replay: the seed of the student whose views these are."""
    budget: str | None = None
    """Bytes for the labels, such as 2MB or 300kB: the codec and the epochs that do best in a quick pilot are taken.
    Views are kept as their seed."""
    student: str = "convnet-3"
    """For --budget: the model of the pilot's students."""
    out: Path | None = None
    """Folder to keep them in. Default: their place in the store."""
    data: Data = field(default_factory=Data)
    teachers: Teachers = field(default_factory=Teachers)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        spec = self._spec()
        budget = None if self.budget is None else parse_bytes(self.budget)
        teachers = self.teachers.load()
        if not teachers:
            raise ConfigError("Labels are made by a teacher. Give one with --teacher (softlabel teach makes one).")
        distilled = read_given(self.distilled, teachers[0].info)
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        if any(teacher.info.digest != distilled.info.digest for teacher in teachers):
            # Made on other pixels than the set's: see whether they do as well on the set's own data.
            data = self.data.options(distilled.info).load(session.progress)
            for teacher in teachers:
                check_teacher(teacher, data.info)
                warn_if_weaker(teacher.to(execution.torch_device), data, execution)
        source = online_labels(teachers, distilled.info, execution, distilled=distilled)
        if budget is not None or spec.regime == "replay":
            source.check_views(find_protocol(self.protocol, self.epochs))
        if budget is not None:
            candidates = label_candidates(distilled, find_protocol(self.protocol, self.epochs), budget)
            if self.machine.dry_run:
                self._tell(candidates)
                return
            spec = self._best(candidates, source, distilled, store, execution, session)
        spec.check(distilled.info.classes)
        if spec.regime == "replay":
            self._store(spec, source, distilled, store, execution, session)
            return
        labels = fixed_labels(teachers, distilled, execution)
        path = self.out or store.labels(
            f"{distilled.info.name}-fixed", fingerprint(labels.fingerprint, distilled.digest)
        )
        facts = {"labels": str(path), "regime": labels.regime, "images": len(distilled), "bytes": labels.label_bytes}
        if self.machine.dry_run:
            print_json(facts) if self.machine.json else print(f"would write {facts['bytes']} bytes to {path}")
            return
        save_labels(labels, distilled, path)
        if self.machine.json:
            print_json(facts)
            return
        agreement = float((labels.table.argmax(dim=1) == distilled.targets).float().mean())
        row = (str(len(distilled)), human_bytes(labels.label_bytes), f"{100 * agreement:.1f} %")
        print_table("Fixed labels", ("images", "bytes of labels", "teacher agrees with the class"), [row])
        print(f"labels: {path}")

    def _spec(self) -> LabelSpec:
        spec = LabelSpec.parse(self.labels)
        if spec.regime not in ("fixed", "replay") or spec.edits or (spec.regime == "fixed" and spec.codec):
            raise ConfigError(
                f"softlabel label keeps fixed labels as they are, or replay ones with a codec. Got {self.labels!r}: "
                f"take fixed, replay, or replay and a codec, as in replay+int8."
            )
        if self.budget is not None:
            if self.labels != "fixed" or self.views != "stored":
                raise ConfigError("--budget chooses the labels. Leave --labels and --views out.")
            return spec
        if spec.regime == "fixed" and (self.epochs is not None or self.views != "stored"):
            raise ConfigError("--epochs and --views are for labels per view. Add --labels replay.")
        if spec.regime == "fixed" and (self.protocol, self.seed) != (Label.protocol, Label.seed):
            raise ConfigError("--protocol and --seed are for labels per view. Add --labels replay.")
        if self.student != Label.student:
            raise ConfigError("--student is for the pilot of a --budget. Add one, or leave it out.")
        return spec

    def _tell(self, candidates: Candidates) -> None:
        """What a budget would try."""
        if self.machine.json:
            print_json({"candidates": [{"labels": spec.spec, "bytes": size} for spec, size in candidates]})
            return
        rows = [(spec.spec, human_bytes(size)) for spec, size in candidates]
        epochs = count_of(pilot_epochs(find_protocol(self.protocol, self.epochs)), "epoch")
        print_table(f"Would be tried, with a student of {epochs} each", ("labels", "bytes"), rows)

    def _best(
        self, candidates: Candidates, source: OnlineLabels, distilled: DistilledSet, store: Store, execution: Execution,
        session: Session,
    ) -> LabelSpec:  # fmt: skip
        """What does best in a pilot, of all labels that fit into the budget."""
        protocol = find_protocol(self.protocol, self.epochs)
        data = self.data.options(distilled.info).load(session.progress)
        found = pilot(
            candidates, source, distilled, data, protocol=protocol, student=self.student, seed=self.seed,
            execution=execution, store=store, progress=session.progress,
        )  # fmt: skip
        if not self.machine.json:
            rows = [(one.spec.spec, human_bytes(one.bytes), f"{100 * one.accuracy:.1f}") for one in found]
            print_table("Pilot on real training images", ("labels", "bytes", "accuracy, %"), rows, numbers=2)
        return found[0].spec

    def _store(
        self, spec: LabelSpec, source: OnlineLabels, distilled: DistilledSet, store: Store, execution: Execution,
        session: Session,
    ) -> None:  # fmt: skip
        protocol, codec = find_protocol(self.protocol, self.epochs), spec.codec or Codec()
        views = self.views if self.budget is None else "seed"
        epochs = spec.epochs or protocol.labelled_epochs
        whole = find_protocol(self.protocol).fingerprint  # not that of so many epochs: a store is grown
        key = fingerprint(source.fingerprint, distilled.digest, whole, codec.identity, views, self.seed,
                          execution.identity, epochs if self.budget else 0)  # fmt: skip
        path = self.out or store.labels(f"{distilled.info.name}-{self.protocol}-{codec.spec}", key)
        rows = epochs * len(distilled)
        size = rows * codec.row_bytes(distilled.info.classes) + codec.shared_bytes(distilled.info.classes)
        facts: dict[str, Any] = {"labels": str(path), "regime": "replay", "codec": codec.spec, "epochs": epochs}
        facts |= {"rows": rows, "bytes": size}
        if self.machine.dry_run:
            kept = "their views" if views == "stored" else "the seed of their views"
            told = f"would write about {human_bytes(size)} of labels, and {kept}, to {path}"
            print_json(facts) if self.machine.json else print(told)
            return
        write_label_store(
            path, source, distilled, protocol=protocol, seed=self.seed, epochs=epochs, codec=codec, views=views,
            execution=execution, progress=session.progress,
        )  # fmt: skip
        artifact = read_artifact(path, "label-store", verify=False)
        parts = {kind: artifact.bytes_of(prefix) for kind, prefix in (("labels", "labels/"), ("views", "views/"))}
        parts["codec"] = artifact.bytes_of("codec.safetensors")
        parts["views"] = parts["views"] or SEED_BYTES
        if self.machine.json:
            print_json({**facts, "epochs": artifact.meta["epochs"], "bytes": parts})
            return
        row = (codec.spec, str(artifact.meta["epochs"]), *(human_bytes(size) for size in parts.values()))
        columns = ("codec", "epochs", "bytes of labels", "of views", "of the codec")
        print_table("Labels per view", columns, [row], numbers=4)
        print(f"labels: {path}")
