"""The studies of the GIFT paper as recipes: `softlabel grid NAME`, each in a full and a quick setting.

All share their data (CIFAR-10 with a tenth of train set aside for choosing), teacher and sets, so that what one study
trained the others find. The full setting is what `results/` shows; the quick one takes minutes on two CPU cores and
tells whether everything works, not who wins.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from softlabel.core import ConfigError, UnknownNameError, count_of
from softlabel.evaluation import (
    Comparison,
    DataOptions,
    Labeler,
    Recipe,
    SetOptions,
    TeacherOptions,
    Tuning,
    find_protocol,
)
from softlabel.losses import Loss
from softlabel.training import TEACHER_PROTOCOL, Checks

METHODS = {"random": "random", "herding": "herding", "rded": "rded:factor=1,crops=5,images=300"}
ALL_LOSSES = ("ce", "kl", "kl_scaled", "soft_ce", "soft_ce_ce", "mse", "mse_ce", "cosine", "gift")
MAIN_LOSSES = ("kl", "kl_scaled", "mse_ce", "cosine", "gift")
GAMMAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
ALPHAS = (0.0, 0.3, 0.5, 0.8)
TEMPERATURES = (1.0, 4.0, 20.0)
FULL_EPOCHS, QUICK_EPOCHS = 300, 60
TEACHER_EPOCHS, QUICK_TEACHER_EPOCHS = 12, 3


def losses(quick: bool, teacher_epochs: int) -> Recipe:
    """Every loss on random, herding and RDED images (the paper's Figure 1)."""
    return _study(
        "gift-losses",
        "every loss on random, herding and RDED images; each method's own loss marked",
        "Every loss on every set",
        quick,
        teacher_epochs,
        sets=_sets(("random", "rded") if quick else tuple(METHODS), (10,) if quick else (1, 10)),
        losses=ALL_LOSSES,
        plots=({"kind": "bars", "title": "Losses on every set", "group": "set", "bar": "loss"},),
    )


def optimizers(quick: bool, teacher_epochs: int) -> Recipe:
    """Losses under other optimizers than the one they were tuned for; KL with and without the T^2 factor."""
    return _study(
        "gift-optimizers",
        "losses under AdamW, Adam, RMSprop, SGD and SGD with momentum, at default and tuned learning rates",
        "Losses under other optimizers",
        quick,
        teacher_epochs,
        sets=_sets(("random",), (10,)),
        losses=MAIN_LOSSES,
        optimizers=("adamw", "adam", "rmsprop", "sgd", "sgd:momentum=0.9"),
        tuning=None if quick else Tuning(),
        plots=(
            {"kind": "heat", "title": "Optimizers and losses", "rows": "optimizer", "columns": "loss", "where": {}},
        ),
    )


def architectures(quick: bool, teacher_epochs: int) -> Recipe:
    """Labels and images made with ConvNet-3; students of other architectures."""
    small = ("convnet-3", "convnet-2", "convnet-3:width=64", "mlp", "vit")
    return _study(
        "gift-architectures",
        "images and labels from ConvNet-3; students are ConvNets, ResNets, an MLP and a ViT",
        "Students of other architectures",
        quick,
        teacher_epochs,
        sets=_sets(("random",) if quick else ("random", "rded"), (10,)),
        losses=("kl", "gift") if quick else ("ce", *MAIN_LOSSES),
        students=small if quick else (*small, "convnet-4", "resnet-18", "resnet-50"),
        plots=({"kind": "heat", "title": "Students and losses", "rows": "student", "columns": "loss", "where": {}},),
    )


def refinement(quick: bool, teacher_epochs: int) -> Recipe:
    """GIFT's own choices: gamma, alpha, the additive form, and probabilities at a temperature in place of logits."""
    specs = [f"gift:gamma={gamma:g}" for gamma in GAMMAS] + [f"gift:alpha={alpha:g}" for alpha in ALPHAS]
    specs += [f"gift_softmax:temperature={temperature:g}" for temperature in TEMPERATURES]
    if quick:
        specs = ["gift:gamma=0", "gift:gamma=0.3", "gift:gamma=1", "gift:alpha=0.5", "gift_softmax"]
    common = {"kind": "sweep", "line": "set", "log": False}
    return _study(
        "gift-refinement",
        "GIFT's gamma and alpha, its additive form, and probabilities in place of logits",
        "How GIFT refines a label",
        quick,
        teacher_epochs,
        sets=_sets(("random",) if quick else ("random", "rded"), (10,)),
        losses=("gift", "gift_additive", *specs),
        plots=(
            {**common, "title": "Weight of the hard label", "loss": "gift", "parameter": "gamma", "default": 1 / 11},
            {**common, "title": "Label smoothing", "loss": "gift", "parameter": "alpha", "default": 0.1},
            {**common, "title": "Probabilities at a temperature", "loss": "gift_softmax", "parameter": "temperature",
             "default": 1.0, "log": True},
        ),
    )  # fmt: skip


def teachers(quick: bool, teacher_epochs: int) -> Recipe:
    """Labels from weak to strong teachers along one trajectory, and from an ensemble."""
    early = [epoch for epoch in ((1, 2) if quick else (1, 2, 4, 8)) if epoch < teacher_epochs]
    along = tuple(Labeler(name=f"epoch {epoch}", epoch=epoch) for epoch in (*early, teacher_epochs))
    labelers = (*along, Labeler(name="ensemble", seeds=(0, 1) if quick else (0, 1, 2)))
    shown = {labeler.name: labeler.epoch for labeler in along}
    return _study(
        "gift-teachers",
        "labels from weak to strong teachers along one trajectory, and from an ensemble",
        "Weak and strong teachers",
        quick,
        teacher_epochs,
        sets=_sets(("random",), (10,)),
        losses=("kl", "gift") if quick else ("ce", "kl", "soft_ce", "mse_ce", "cosine", "gift"),
        teachers=tuple(labeler.name for labeler in labelers),
        labelers=labelers,
        plots=(
            {"kind": "epochs", "title": "Accuracy by the teacher's epoch", "axis": "teacher", "x": shown,
             "line": "loss", "x_title": "epochs that the teacher was trained"},
            {"kind": "bars", "title": "Every teacher", "group": "teacher", "bar": "loss"},
        ),
    )  # fmt: skip


def continual(quick: bool, teacher_epochs: int) -> Recipe:
    """Class-incremental learning in five steps, with the distilled set as memory."""
    return _study(
        "gift-continual",
        "class-incremental learning in 5 steps (--steps for others) with the distilled set as memory",
        "Classes one step after another",
        quick,
        teacher_epochs,
        sets=_sets(("random",) if quick else ("random", "rded"), (10,)),
        losses=("ce", "kl", "gift") if quick else ("ce", "kl", "mse_ce", "cosine", "gift"),
        steps=5,
    )


def tiny_losses(quick: bool, teacher_epochs: int) -> Recipe:
    """Losses with many classes: Tiny-ImageNet at 32 px."""
    base = _study(
        "gift-many-classes",
        "losses with 200 classes: Tiny-ImageNet at 32 px, random images, IPC 10",
        "Losses with many classes",
        quick,
        teacher_epochs,
        sets=_sets(("random",), (1,) if quick else (10,)),
        losses=("ce", "kl", "mse_ce", "cosine", "gift"),
        plots=({"kind": "bars", "title": "Losses", "group": "set", "bar": "loss"},),
    )
    return replace(base, data=DataOptions(spec="tiny-imagenet-200", image_size=(32, 32), selection=0.1))


STUDIES: dict[str, Callable[[bool, int], Recipe]] = {
    "losses": losses,
    "optimizers": optimizers,
    "architectures": architectures,
    "refinement": refinement,
    "teachers": teachers,
    "continual": continual,
    "many-classes": tiny_losses,
}


def find_study(name: str, quick: bool = False, teacher_epochs: int | None = None) -> Recipe:
    """The recipe of the study of that name, with another number of teacher epochs when given.

    Raises:
        UnknownNameError: no such study.
    """
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    usual = QUICK_TEACHER_EPOCHS if quick else TEACHER_EPOCHS
    return STUDIES[name](quick, usual if teacher_epochs is None else teacher_epochs)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a person changes of a study; what is None stays the study's."""

    data: str | None = None
    """Another data set. See: softlabel ls datasets"""
    classes: int | None = None
    """Keep only so many classes, the first by index."""
    methods: tuple[str, ...] | None = None
    """Distillation methods: specs, or random, herding and rded as the studies have them."""
    ipc: tuple[int, ...] | None = None
    """Images per class."""
    arch: str | None = None
    """The teacher's architecture, and the students' where the study has one kind."""
    students: tuple[str, ...] | None = None
    """Student models. See: softlabel ls models"""
    losses: tuple[str, ...] | None = None
    """Losses. See: softlabel ls losses"""
    optimizers: tuple[str, ...] | None = None
    """Optimizers, e.g. adamw sgd:momentum=0.9. See: softlabel ls optimizers"""
    tune: bool = False
    """Search every learning rate on the selection split, as further arms (the full optimizers study does)."""
    default_rates: bool = False
    """No search of learning rates where the study has one."""
    steps: int | None = None
    """Steps of class-incremental learning."""


def change(recipe: Recipe, changes: Changes) -> Recipe:
    """The study with these changes.

    Raises:
        UnknownNameError, ConfigError: for what does not exist or cannot be.
    """
    if changes.tune and changes.default_rates:
        raise ConfigError("--tune and --default-rates exclude each other. Keep one.")
    if changes.steps is not None and changes.steps < 1:
        raise ConfigError(f"--steps must be 1 or more. Got {changes.steps} instead.")
    if changes.ipc is not None and len(set(changes.ipc)) < len(changes.ipc):
        raise ConfigError(f"The numbers of images per class must differ. Got {', '.join(map(str, changes.ipc))}.")
    comparison, teacher = recipe.comparison, recipe.teacher
    if changes.steps is not None and not comparison.steps:
        comparison = replace(comparison, title=f"{comparison.title}, in {count_of(changes.steps, 'incremental step')}")
    if changes.arch is not None:
        teacher = replace(teacher, arch=changes.arch)
        if len(comparison.students) == 1:
            comparison = replace(comparison, students=(changes.arch,))
    given: dict[str, Any] = {
        "students": changes.students,
        "losses": changes.losses,
        "optimizers": changes.optimizers,
        "steps": changes.steps,
    }
    comparison = replace(comparison, **{key: value for key, value in given.items() if value is not None})
    if changes.tune or changes.default_rates:
        comparison = replace(comparison, tuning=Tuning() if changes.tune else None)
    sets = recipe.sets
    if changes.methods is not None or changes.ipc is not None:
        ipcs = changes.ipc or tuple(sorted({options.ipc for options in sets}))
        sets = _sets(changes.methods or tuple(dict.fromkeys(_short(options.method) for options in sets)), ipcs)
    data = recipe.data if changes.data is None else replace(recipe.data, spec=changes.data)
    if changes.classes is not None:
        data = replace(data, classes=changes.classes)
    return replace(recipe, data=data, teacher=teacher, sets=sets, comparison=comparison)


def _study(
    name: str,
    summary: str,
    title: str,
    quick: bool,
    teacher_epochs: int,
    *,
    sets: tuple[SetOptions, ...],
    losses: tuple[str, ...],
    labelers: tuple[Labeler, ...] = (Labeler(),),
    **settings: Any,
) -> Recipe:
    protocol = find_protocol("gift", epochs=QUICK_EPOCHS if quick else FULL_EPOCHS)
    comparison = Comparison(
        name=f"{name}-quick" if quick else name,
        title=title,
        protocol=replace(protocol, checks=Checks(count=1)) if quick else protocol,
        losses=tuple({Loss.parse(loss): loss for loss in losses}.values()),
        seeds=(0, 1) if quick else (0, 1, 2),
        **{"students": ("convnet-3",), **settings},
    )
    teacher = TeacherOptions(arch="convnet-3", protocol=TEACHER_PROTOCOL.with_epochs(teacher_epochs))
    return Recipe(
        name=comparison.name,
        summary=summary,
        data=DataOptions(spec="cifar10", selection=0.1),
        teacher=teacher,
        sets=sets,
        comparison=comparison,
        labelers=labelers,
    )


def _sets(methods: tuple[str, ...], ipcs: tuple[int, ...]) -> tuple[SetOptions, ...]:
    return tuple(
        SetOptions(
            name=_short(method) if len(ipcs) == 1 else f"{_short(method)}, IPC {ipc}",
            method=METHODS.get(method, method),
            ipc=ipc,
        )
        for ipc in ipcs
        for method in methods
    )


def _short(method: str) -> str:
    """A study's short name of a method, or the spec."""
    return next((name for name, spec in METHODS.items() if spec == method), method)
