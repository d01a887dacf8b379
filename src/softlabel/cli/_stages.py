"""softlabel teach, distill, label and train: one stage each."""

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from softlabel.cli._labeler import hello_of, weak_teachers
from softlabel.cli._options import Data, Machine, Session, Teachers
from softlabel.cli._output import print_json, print_plan, print_table
from softlabel.core import (
    ConfigError,
    DistilledSet,
    LabelSource,
    UnknownNameError,
    human_bytes,
    human_seconds,
)
from softlabel.distill import ImageUpdate, check_work, tiles
from softlabel.evaluation import (
    SetOptions,
    SetPaths,
    TeacherOptions,
    check_classes,
    find_protocol,
    keep_updated,
    make_set,
    plan_labeler,
    plan_set,
    plan_teacher,
    read_given,
    set_path,
    student_views,
    train_student,
)
from softlabel.labels import (
    LabelSpec,
    LabelStore,
    OnlineLabels,
    check_projector,
    load_label_store,
    load_labeler,
    load_labels,
    make_labels,
    read_labels,
    train_labeler,
    train_set_labeler,
)
from softlabel.models import build_model, check_model
from softlabel.store import LOSSLESS, is_complete, load_distilled, read_artifact
from softlabel.training import TEACHER_PROTOCOLS, Protocol, Teacher, train_teacher, warn_if_weaker


@dataclass(frozen=True, kw_only=True)
class Teach:
    """Train a teacher on real data and keep its trajectory, its accuracies and its data's fingerprint.

    Example: softlabel teach --data cifar10 --arch convnet-3 --epochs 12
    """

    arch: str = "convnet-3"
    """Model spec. See: softlabel ls models"""
    protocol: str = "teacher"
    """teacher (good in few epochs: momentum, linear warm-up, linear fall to 0), or expert (slow and steady, for
    trajectories: plain SGD, a constant rate)."""
    experts: int = 1
    """How many to train, with the seeds from --seed on."""
    epochs: int | None = None
    """Epochs. Default: the protocol's."""
    batch: int | None = None
    """Batch size. Default: the protocol's."""
    lr: float | None = None
    """Peak learning rate. Default: the protocol's."""
    views: str | None = None
    """Augmentation: flip-crop, shift, dsa or none. Default: the protocol's."""
    save_every: int = 1
    """Keep the weights after every so many epochs."""
    seed: int = 0
    """Seed of initialisation, order and views."""
    out: Path | None = None
    """Folder to keep it in. Default: its place in the store."""
    data: Data = field(default_factory=Data)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        protocol = self._protocol()
        if self.experts < 1:
            raise ConfigError(f"--experts must be 1 or more. Got {self.experts} instead.")
        if self.experts > 1 and self.out is not None:
            raise ConfigError("--out is the folder of one teacher. Leave it out, or train one expert at a time.")
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        data = self.data.options().load(session.progress)
        seeds = range(self.seed, self.seed + self.experts)
        if self.machine.dry_run:
            lines = []
            for seed in seeds:
                options = TeacherOptions(arch=self.arch, protocol=protocol, seed=seed)
                line, _ = plan_teacher(
                    options, data, store=store, execution=execution, save_every=self.save_every, out=self.out
                )
                lines.append(line)
            print_plan(lines, execution, self.machine.json)
            return
        paths = [
            train_teacher(
                data,
                arch=self.arch,
                store=store,
                execution=execution,
                seed=seed,
                protocol=protocol,
                save_every=self.save_every,
                out=self.out,
                progress=session.progress,
            )
            for seed in seeds
        ]
        metas = [read_artifact(path, "teacher", verify=False).meta for path in paths]
        if self.machine.json:
            found = [{"teacher": str(path), **meta} for path, meta in zip(paths, metas, strict=True)]
            print_json(found[0] if self.experts == 1 else found)
            return
        rows = [
            (
                self.arch,
                f"{100 * meta['test_accuracy']:.1f} %",
                str(meta["epochs"]),
                human_seconds(meta["timing"]["train_seconds"]),
            )
            for meta in metas
        ]
        title = f"{'Teacher' if self.experts == 1 else 'Experts'} on {data.info.name}"
        print_table(title, ("model", "test accuracy, last epoch", "epochs", "train time"), rows)
        for path in paths:
            print(f"teacher: {path}")

    def _protocol(self) -> Protocol:
        if self.protocol not in TEACHER_PROTOCOLS:
            raise UnknownNameError("teacher's protocol", self.protocol, TEACHER_PROTOCOLS)
        protocol = TEACHER_PROTOCOLS[self.protocol]
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ConfigError(f"--lr must be a number above 0. Got {self.lr} instead.")
        given = {"epochs": self.epochs, "batch": self.batch, "views": self.views}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if self.lr is not None:
            changes["optimizer"] = replace(protocol.optimizer, lr=self.lr)
        return replace(protocol, **changes)


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Make a distilled set from real data.

    Example: softlabel distill --data cifar10 --method rded:factor=1,crops=5 --ipc 10 --teacher PATH
    """

    method: str = "random"
    """A method with its options, e.g. random or rded:factor=2, or package.module:function. See: softlabel ls methods"""
    ipc: int = 10
    """Images per class."""
    storage: str = "png"
    """png or webp (lossless), or jpeg-Q with quality Q from 1 to 100."""
    labeler: str | None = None
    """hello, with its options as in hello:backbone=efficientnet-lite0,rank=8: make a labeler too, from the teacher's
    trajectory; with offset_epochs=30 or set_epochs=60, one for the images of this set. See: softlabel labeler --help"""
    update: int = 0
    """With --labeler and rded:factor=2 or more: steps that move the images until the labeler sees in them what it sees
    in the larger originals (HeLlO)."""
    seed: int = 0
    """Seed of every draw."""
    out: Path | None = None
    """Folder to keep it in. Default: its place in the store."""
    data: Data = field(default_factory=Data)
    teachers: Teachers = field(default_factory=Teachers)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        update = self._update()
        hello = None if self.labeler is None else hello_of(self.labeler, self.teachers.teacher)
        options = SetOptions(name=self.method, method=self.method, ipc=self.ipc, storage=self.storage)
        teachers = self.teachers.load_for(self.method)
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        data = self.data.options(teachers[0].info if teachers else None).load(session.progress)
        check_work(self.method, data, teachers, ipc=self.ipc)
        group: list[Teacher] = []
        if hello is not None:  # what it lacks is told before anything is made
            group = weak_teachers(self.teachers.teacher[0])
            check_projector(hello, data.info)
        out = None if update else self.out  # with an update, what was made first stays in the store
        if self.machine.dry_run:
            path = set_path(options, data, teachers, self.seed, store, execution, out=out)
            family = SetPaths(self.method, ((self.seed, path),))
            lines = [plan_set(options, family, data, teachers, execution)]
            if hello is not None:
                images = self.ipc * data.info.classes
                lines += plan_labeler(
                    hello, update, group, family, images, images * tiles(self.method), data, self.seed, store,
                    execution, out=self.out if update else None,
                )  # fmt: skip
            print_plan(lines, execution, self.machine.json)
            return
        path = make_set(options, data, teachers, self.seed, store, execution, out=out, progress=session.progress)
        labeler = None
        if hello is not None:
            labeler = train_labeler(
                data, group, hello, store=store, execution=execution, seed=self.seed, progress=session.progress
            )
            if update:
                path = keep_updated(
                    update, path, data, load_labeler(labeler), store, execution, out=self.out,
                    progress=session.progress,
                )  # fmt: skip
            if hello.of_set:
                labeler = train_set_labeler(
                    data, group, hello, load_distilled(path), store=store, execution=execution, seed=self.seed,
                    progress=session.progress,
                )  # fmt: skip
        made = load_distilled(path)
        if self.machine.json:
            also = {"labeler": str(labeler)} if labeler is not None else {}
            print_json({"distilled": str(path), **also, **read_artifact(path, "distilled", verify=False).meta})
            return
        row = (made.method, str(made.ipc), str(len(made)), human_bytes(made.image_bytes))
        print_table(f"Distilled {data.info.name}", ("method", "IPC", "images", "bytes of images"), [row])
        print(f"distilled set: {path}")
        if labeler is not None:
            print(f"labeler: {labeler}")

    def _update(self) -> ImageUpdate | None:
        if not self.update:
            return None
        if self.labeler is None:
            raise ConfigError("--update moves images towards what a labeler sees. Ask for one with --labeler hello.")
        if tiles(self.method) == 1:
            raise ConfigError(
                f"--update needs images that were made smaller. Take --method rded:factor=2 instead of {self.method}."
            )
        if self.storage not in LOSSLESS:
            raise ConfigError(f"--update needs images as they were made. Keep them as png or webp, not {self.storage}.")
        return ImageUpdate(steps=self.update)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one student on a distilled set and test it.

    Example: softlabel train DISTILLED --teacher PATH --loss gift --epochs 300
    """

    distilled: tyro.conf.Positional[Path]
    """Folder of a distilled set, or of images in one sub-folder per class (of the --data that they are of)."""
    protocol: str = "gift"
    """How the student is trained. See: softlabel ls protocols"""
    loss: str | None = None
    """Loss spec. Default: the protocol's. See: softlabel ls losses"""
    labels: str | None = None
    """hard, fixed, online or replay (with edits or a codec, as in replay+int8), or the folder of labels that softlabel
    label keeps. Default: the protocol's."""
    student: str = "convnet-3"
    """Model spec. See: softlabel ls models"""
    epochs: int | None = None
    """Epochs. Default: the protocol's."""
    seed: int = 0
    """Seed of initialisation, order and views."""
    data: Data = field(default_factory=Data)
    teachers: Teachers = field(default_factory=Teachers)
    machine: Machine = field(default_factory=Machine)

    def _distilled(self, session: Session) -> DistilledSet:
        """The set: an artifact, or class folders of images of --data."""
        if is_complete(self.distilled) or self.data.data is None or not self.distilled.is_dir():
            return load_distilled(self.distilled)
        info = self.data.options(None).load(session.progress).info
        return read_given(self.distilled, info, session.progress)

    def run(self, session: Session) -> None:
        check_model(self.student)
        distilled = self._distilled(session)
        stored = Path(self.labels) if self.labels is not None and os.path.isdir(self.labels) else None
        kind = read_artifact(stored, verify=False).kind if stored is not None else ""
        spec = LabelSpec() if stored or self.labels is None else LabelSpec.parse(self.labels)
        regime = {"": spec.regime, "label-store": "replay"}.get(kind, "fixed")
        protocol = find_protocol(self.protocol, self.epochs).with_labels(regime, spec.epochs)
        spec.require(protocol)
        own = protocol.loss
        if self.loss is not None or protocol.labels == "hard" or not own.needs_teacher:
            protocol = protocol.with_loss(self.loss or ("ce" if own.needs_teacher else own.spec))
        protocol.require_labels()
        if protocol.labels == "hard" and self.labels not in (None, "hard"):
            raise ConfigError(
                f"The loss {protocol.loss.spec} looks at the class alone, and --labels {self.labels} are a teacher's. "
                f"Leave --labels out, or choose another loss."
            )
        store, execution = self.machine.open_store(), self.machine.execution()
        if stored is not None and self.teachers.teacher:
            raise ConfigError(f"The labels at {stored} are kept already, and no teacher is asked. Leave --teacher out.")
        teachers = self.teachers.load() if stored is None and protocol.labels != "hard" else []
        source: LabelSource
        opened: LabelStore | None = None
        if stored is not None and kind == "label-store":
            opened = load_label_store(stored, distilled)
            opened.views_for(protocol, distilled)
            source = opened.labels
        elif stored is not None:
            source = load_labels(stored, distilled)
        else:
            made = make_labels(protocol.labels, teachers=teachers, distilled=distilled, execution=execution)
            if isinstance(made, OnlineLabels):
                made.check_views(protocol)
            source = read_labels(
                made,
                spec,
                distilled,
                regime=protocol.labels,
                plan=student_views(distilled, protocol, self.seed),
                epochs=protocol.labelled_epochs,
                execution=execution,
            )
        protocol.require_space(source.space)
        data = self.data.options(distilled.info).load(session.progress)
        check_classes(distilled, data)
        build_model(self.student, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)
        for teacher in teachers:
            warn_if_weaker(teacher.to(execution.torch_device), data, execution)
        if self.machine.dry_run:
            batch = protocol.batch_size(len(distilled), distilled.info.classes)
            steps = protocol.total_epochs * -(-len(distilled) // batch)
            facts = {"protocol": protocol.fingerprint, "epochs": protocol.total_epochs, "batch": batch, "steps": steps}
            print_json(facts) if self.machine.json else print_table(
                "Plan", list(facts), [[str(v) for v in facts.values()]]
            )
            return
        record = train_student(
            distilled,
            source,
            data=data,
            protocol=protocol,
            student=self.student,
            seed=self.seed,
            execution=execution,
            store=store,
            stored=opened,
            arm=f"{distilled.method} / {protocol.loss.spec}",
            progress=session.progress,
        )
        if self.machine.json:
            print_json(record)
            return
        told = "fixed" if stored is not None else spec.spec or protocol.labels
        if opened is not None:
            told = f"stored, {opened.labels.codec.codec.spec}"
        row = (
            record["arm"]["name"],
            told,
            human_bytes(record["bytes"]["labels"] + record["bytes"]["labeler"]),
            f"{100 * record['accuracy']['final']:.1f} %",
            f"{100 * record['accuracy']['best_test']:.1f} %",
            human_seconds(record["timing"]["train_seconds"]),
        )
        columns = ("arm", "labels", "their bytes, or the labeler's", "test accuracy, last epoch", "best on test",
                   "train time")  # fmt: skip
        print_table("Student", columns, [row], numbers=4)
        print(f"record: {store.record(record['key'])}")
