"""softlabel run, evaluate and report: whole comparisons."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from softlabel.cli._options import Data, Machine, Session, Teachers, regime_alone
from softlabel.cli._output import print_json, print_plan
from softlabel.cli._studies import show_study
from softlabel.core import ConfigError, Dataset, DatasetInfo, DistilledSet, SoftlabelWarning
from softlabel.distill import check_images, plain_sampling
from softlabel.evaluation import (
    STACK_SIZE,
    Comparison,
    Recipe,
    SetOptions,
    SetPaths,
    TimedSet,
    check_inputs,
    compare,
    find_protocol,
    keep_given,
    make_executor,
    make_set,
    plan_recipe,
    plan_set,
    plan_students,
    plan_timed,
    read_given,
    run_recipe,
    set_names,
    set_path,
    teacher_facts,
    timed_family,
)
from softlabel.generate import load_generator
from softlabel.labels import FixedLabels, load_labels
from softlabel.recipes import find_recipe
from softlabel.report import write_report
from softlabel.store import Store, is_complete, load_distilled, read_artifact
from softlabel.training import Execution, Teacher, resolve_stack

SOME_FAILED = 3
"""The exit status of a study some of whose students failed."""
TIMED_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """How the cells are carried out."""

    epochs: int | None = None
    """Student epochs, instead of the study's."""
    seed: int | None = None
    """First seed. Default: the study's."""
    seeds: int | None = None
    """Number of seeds. Default: the study's."""
    executor: str = "local"
    """local, or ray."""
    address: str | None = None
    """Address of a running Ray cluster. Default: a local one."""
    workers: int | None = None
    """Processes of a local Ray cluster. Default: one per CPU."""
    stack: str = "auto"
    """How students on the same views are run: auto, loop or vmap. See: softlabel ls stacks"""
    stack_size: int = STACK_SIZE
    """How many students on the same views are trained together at most."""
    retry: bool = False
    """Train cells again that failed before."""

    def run(self, recipe: Recipe, machine: Machine, session: Session) -> int | None:
        """Run or plan the study; the exit status."""
        if self.stack_size < 1:
            raise ConfigError(f"--stack-size must be 1 or more. Got {self.stack_size} instead.")
        executor = make_executor(self.executor, address=self.address, workers=self.workers)
        recipe = recipe.with_seeds(self.seed, self.seeds).with_epochs(self.epochs)
        store, execution = machine.open_store(), machine.execution()
        resolve_stack(self.stack, execution)
        if machine.dry_run:
            data = recipe.data.load(session.progress)
            lines = plan_recipe(recipe, data, store=store, execution=execution)
            print_plan(lines, execution, machine.json, report=True)
            return None
        study = run_recipe(
            recipe,
            store=store,
            execution=execution,
            command=session.command,
            executor=executor,
            stack=self.stack,
            stack_size=self.stack_size,
            retry=self.retry,
            tolerant=True,
            progress=session.progress,
        )
        return None if show_study(study, machine.json) else SOME_FAILED


@dataclass(frozen=True, kw_only=True)
class Run:
    """The whole story of a recipe: teacher, distilled sets, students, report. See: softlabel ls recipes

    What is finished is found, and a killed run goes on when the same command is given again. The exit status is 3 when
    some students failed.

    Example: softlabel run digits-quick
    """

    recipe: tyro.conf.Positional[str]
    """Name of the recipe."""
    running: Running = field(default_factory=Running)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> int | None:
        return self.running.run(find_recipe(self.recipe), self.machine, session)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Compare losses on distilled sets, seed by seed, with random real images and hard labels as baselines.

    Example: softlabel evaluate PATH --teacher PATH --losses ce kl gift --protocol gift --epochs 300
    """

    sets: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of distilled sets (softlabel distill prints them), or of images in one sub-folder per class."""
    timed: str | None = None
    """Add sets of all that a generator makes within --seconds, anew for every seed, as in
    latent-diffusion:generator=PATH,steps=6"""
    seconds: float | None = None
    """For --timed. Default: 600, the challenge's ten minutes."""
    protocol: str = "gift"
    """How students are trained. See: softlabel ls protocols"""
    losses: Annotated[tuple[str, ...] | None, tyro.conf.arg(aliases=["--loss"])] = None
    """Loss specs, each an arm on every set. Default: ce, the protocol's own, and gift (and kl under protocol gift);
    ce alone under hard labels. See: softlabel ls losses"""
    labels: str | None = None
    """hard, fixed or online, or the folder of labels kept for the one set given. Default: the protocol's."""
    student: str = "convnet-3"
    """Model spec. See: softlabel ls models"""
    epochs: int | None = None
    """Student epochs. Default: the protocol's."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """Number of seeds."""
    baselines: bool = True
    """Add random real images of the same IPC (drawn anew for every seed), and the hard-label loss."""
    full_epochs: int = 0
    """Epochs of a full-data baseline with hard labels (one seed); 0 leaves it out."""
    data: Data = field(default_factory=Data)
    teachers: Teachers = field(default_factory=Teachers)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        if not self.sets and self.timed is None:
            raise ConfigError("Which distilled sets? Give one or more folders. Make one with: softlabel distill")
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be 1 or more. Got {self.seeds} instead.")
        comparison, timed = self._comparison(), self._timed()
        store, execution = self.machine.open_store(), self.machine.execution()
        group = self.teachers.load()
        teachers = {"teacher": group} if group else {}
        known = _known(self.sets, group)
        if known is None and timed is not None:
            known = load_generator(plain_sampling(timed.method)[0]).info
        data = self.data.options(known).load(session.progress)
        given = {path: read_given(path, data.info, session.progress) for path in self.sets}
        names = set_names({path: distilled.method for path, distilled in given.items()})
        if self.machine.dry_run:
            paths = {path: path for path in given}
        else:
            paths = {path: keep_given(path, distilled, store) for path, distilled in given.items()}
        families = [SetPaths(names[path], tuple((seed, paths[path]) for seed in comparison.seeds)) for path in given]
        sizes = {names[path]: len(distilled) for path, distilled in given.items()}
        folder = self._labels_folder()
        labels = None if folder is None else load_labels(folder, given[self.sets[0]])
        stored = {} if labels is None else {(names[self.sets[0]], seed): labels for seed in comparison.seeds}
        self._check_stored(stored.values(), group)
        alone = ""
        if any(teacher.of_set for teacher in group):
            alone = "the labeler is for the set given alone. Take one for all images (softlabel labeler without --set)."
        elif stored and not group:
            alone = "stored labels are for the set given alone. Add the --teacher that made them."
        random = self._random(given.values(), set(names.values()))
        if random and alone:
            hard = tuple(loss for loss in comparison.losses if loss not in comparison.soft_losses)
            keep = ({"set": tuple(names.values())}, {"loss": hard})
            comparison = replace(comparison, keep=keep)
        for position, options in enumerate(random):
            families.insert(position, _family(options, data, comparison, store, execution))
            sizes[options.name] = options.ipc * data.info.classes
        fresh = []
        if timed is not None:
            check_images(timed.method, data, ipc=1)
            if self.machine.dry_run:
                line, family, sizes[timed.name] = plan_timed(timed, None, data, comparison.seeds, store, execution)
                fresh.append(line)
            else:
                family = timed_family(timed, None, comparison.seeds, store, execution, session.progress)
            families.append(family)
        check_inputs(comparison, data, teachers, families, given.values(), stored)
        if random and alone:
            warnings.warn(f"Random images have hard labels alone: {alone}", SoftlabelWarning, stacklevel=2)
        if self.machine.dry_run:
            pairs = zip(random, families, strict=False)
            lines = fresh + [plan_set(options, family, data, [], execution) for options, family in pairs]
            lines += plan_students(
                comparison, data, families, sizes, teachers, store=store, execution=execution, stored=stored
            )
            print_plan(lines, execution, self.machine.json, report=True)
            return
        for options in random:
            for seed in comparison.seeds:
                make_set(options, data, [], seed, store, execution, progress=session.progress)
        study = compare(
            comparison,
            data,
            teachers,
            families,
            store=store,
            execution=execution,
            command=session.command,
            teacher_facts=teacher_facts(self.teachers.teacher, group, store),
            stored=stored,
            progress=session.progress,
        )
        show_study(study, self.machine.json)

    def _comparison(self) -> Comparison:
        regime = "fixed" if self._labels_folder() is not None else regime_alone(self.labels)
        protocol = find_protocol(self.protocol, self.epochs).with_labels(regime)
        own = ("kl",) if protocol.loss.name == "gift" else (protocol.loss.spec,)
        gift = () if protocol.tempering else ("gift",)  # temperatures that move are kl's
        usual = ("ce",) if protocol.labels == "hard" else tuple(dict.fromkeys(("ce", *own, *gift)))
        losses = usual if self.losses is None else self.losses
        if self.baselines and "ce" not in losses:
            losses = ("ce", *losses)
        return Comparison(
            name=f"evaluate-{self.protocol}",
            title=f"Distilled sets under protocol {self.protocol}",
            protocol=protocol,
            students=(self.student,),
            losses=losses,
            seeds=tuple(range(self.seed, self.seed + self.seeds)),
            full_epochs=self.full_epochs,
            full_seeds=(self.seed,),
        )

    def _timed(self) -> TimedSet | None:
        if self.timed is None:
            if self.seconds is not None:
                raise ConfigError("--seconds is the time of --timed sets. Add --timed, or leave it out.")
            return None
        if not plain_sampling(self.timed)[0].name:
            raise ConfigError("--timed needs a generator: say latent-diffusion:generator=FOLDER (softlabel generator).")
        seconds = TIMED_SECONDS if self.seconds is None else self.seconds
        return TimedSet(name=f"all of {seconds:g} s", method=self.timed, seconds=seconds)

    def _labels_folder(self) -> Path | None:
        """The folder of stored labels, when --labels is one."""
        if self.labels is None or not os.path.isdir(self.labels):
            return None
        if len(self.sets) != 1 or self.timed is not None:
            raise ConfigError("Stored labels belong to one distilled set. Give that one alone, or take --labels fixed.")
        if is_complete(Path(self.labels)) and read_artifact(Path(self.labels), verify=False).kind == "label-store":
            raise ConfigError(
                f"{self.labels} holds labels of one training's views, which softlabel train replays. evaluate takes "
                f"one label per image (softlabel label --labels fixed), or makes them per view with --labels online."
            )
        return Path(self.labels)

    def _check_stored(self, stored: Iterable[FixedLabels], group: Sequence[Teacher]) -> None:
        """Stored labels and those that a teacher makes for the random images must have one origin."""
        for labels in stored:
            if group and set(labels.teachers) != {teacher.fingerprint for teacher in group}:
                raise ConfigError(
                    f"The labels at {self.labels} were not made by the --teacher given, which would label the random "
                    f"images: arms with labels of two origins cannot be compared. Leave --teacher out, or label the "
                    f"set with it: softlabel label {self.sets[0]} --teacher {self.teachers.teacher[0]}"
                )

    def _random(self, loaded: Iterable[DistilledSet], taken: set[str]) -> list[SetOptions]:
        """One family of random real images for every IPC among the sets, unless random images were given."""
        if not self.baselines or "random" in taken:
            return []
        for distilled in loaded:
            counts = torch.bincount(distilled.targets, minlength=distilled.info.classes)
            if int(counts.min()) < int(counts.max()):
                warnings.warn(
                    f"The set {distilled.method} has {int(counts.min())} to {int(counts.max())} images per class. The "
                    f"random images have {distilled.ipc}, and the two are not compared, for their sizes differ.",
                    SoftlabelWarning,
                    stacklevel=2,
                )
        ipcs = sorted({distilled.ipc for distilled in loaded})
        return [
            SetOptions(name="random" if len(ipcs) == 1 else f"random, IPC {ipc}", method="random", ipc=ipc)
            for ipc in ipcs
        ]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of finished studies: HTML, CSV and Markdown.

    Example: softlabel report softlabel-store/studies/digits-quick-0123456789abcdef
    """

    studies: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of studies (softlabel run and evaluate print them)."""
    out: Path | None = None
    """Folder to write to, for a single study. Default: reports/ in the store."""
    json: bool = False
    """Print the paths as JSON on stdout."""

    def run(self, session: Session) -> None:
        if not self.studies:
            raise ConfigError("Which studies? Give one or more folders under studies/ of a store.")
        if self.out is not None and len(self.studies) > 1:
            raise ConfigError("--out takes one study. Leave it out to write each report into its store.")
        files = [write_report(study, self.out) for study in self.studies]
        if self.json:
            print_json([{key: str(path) for key, path in vars(entry).items()} for entry in files])
        else:
            for entry in files:
                print(f"report: {entry.html}")


def _known(sets: Iterable[Path], teachers: Sequence[Teacher]) -> DatasetInfo | None:
    """The data behind the first set that says so, or behind the teacher."""
    for path in sets:
        if is_complete(path):
            return load_distilled(path).info
    return teachers[0].info if teachers else None


def _family(options: SetOptions, data: Dataset, comparison: Comparison, store: Store, execution: Execution) -> SetPaths:
    return SetPaths(
        options.name,
        tuple((seed, set_path(options, data, [], seed, store, execution)) for seed in comparison.seeds),
    )
