"""The table of methods, and the one way to run any of them."""

import dataclasses
import importlib
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    DistilledSet,
    DistillError,
    Option,
    Progress,
    Silent,
    UnknownNameError,
    build_config,
    parse_spec,
    plain,
    stream,
)
from softlabel.distill._common import Images, check_ipc
from softlabel.distill._coresets import (
    HerdingConfig,
    KCentreConfig,
    RandomConfig,
    herding,
    k_centre,
    random_images,
)
from softlabel.distill._latent import (
    LatentDiffusionConfig,
    check_latent_diffusion,
    fingerprints_read,
    latent_diffusion,
)
from softlabel.distill._rded import RdedConfig, check_rded, rded
from softlabel.distill._scores import (
    CadConfig,
    DecileConfig,
    El2nConfig,
    ForgettingConfig,
    StratifiedConfig,
    cad_prune,
    ce_decile,
    el2n,
    forgetting,
    stratified,
)
from softlabel.training import Execution, Teacher, check_teacher, resolve_execution, warn_if_weaker


@dataclass(frozen=True)
class Method:
    """A distillation method.

    Attributes:
        config: a frozen dataclass with a default for every field.
        function: `(config, data, teachers, *, ipc, generator, execution, progress) -> Images`.
        teacher: whether it looks at a teacher: `no`, `optional`, `required`, or at its whole `trajectory`: the
            checkpoints of one training after every epoch, in their order.
        seeded: whether another seed gives another set.
        summary: a line for people.
        check: refuses, before any work, what cannot work: `(config, data, ipc)`.
        name: what the spec begins with; of somebody's own function, `package.module:function`.
        revision: part of a set's identity; raised when a release makes other images from the same settings.
        reads: what the identity has in place of options that name files: their fingerprints.
        computes: whether its pixels come from a network, so that they depend on device and precision.
        asks: whether settings of a method with an `optional` teacher look at it; None: all do.
    """

    config: type
    function: Callable[..., Images]
    teacher: str
    seeded: bool
    summary: str
    check: Callable[[Any, Dataset, int], None]
    name: str
    revision: int = 1
    reads: Callable[[Any], dict[str, str]] | None = None
    computes: bool = False
    asks: Callable[[Any], bool] | None = None

    def looks_at(self, config: Any, teachers: Sequence[Teacher]) -> tuple[Teacher, ...]:
        """Those of `teachers` that a method with these settings looks at: all of them, or none."""
        ignored = self.teacher == "no" or (self.asks is not None and not self.asks(config))
        return () if ignored else tuple(teachers)


_TABLE = (
    Method(
        RandomConfig, random_images, "no", True, "random real images: the baseline of everything", check_ipc, "random"
    ),
    Method(
        HerdingConfig,
        herding,
        "required",
        False,
        "real images whose mean feature follows the class mean",
        check_ipc,
        "herding",
    ),
    Method(
        KCentreConfig,
        k_centre,
        "required",
        True,
        "real images that cover the class in feature space",
        check_ipc,
        "k-centre",
    ),
    Method(
        RdedConfig,
        rded,
        "required",
        True,
        "realistic patches chosen by a teacher, tiled into mosaics",
        check_rded,
        "rded",
        revision=2,
    ),
    Method(
        DecileConfig,
        ce_decile,
        "required",
        True,
        "real images of one tenth of the class by the teacher's cross-entropy",
        check_ipc,
        "ce-decile",
    ),
    Method(
        StratifiedConfig,
        stratified,
        "required",
        True,
        "real images from easy to hard by the teacher's cross-entropy",
        check_ipc,
        "stratified",
    ),
    Method(
        El2nConfig,
        el2n,
        "trajectory",
        False,
        "real images with the largest error vector early in training",
        check_ipc,
        "el2n",
    ),
    Method(
        ForgettingConfig,
        forgetting,
        "trajectory",
        False,
        "real images that training learns and forgets most often",
        check_ipc,
        "forgetting",
    ),
    Method(
        CadConfig,
        cad_prune,
        "trajectory",
        False,
        "real images that training is unsure of at its end",
        check_ipc,
        "cad-prune",
    ),
    Method(
        LatentDiffusionConfig,
        latent_diffusion,
        "optional",
        True,
        "images made by a generator (softlabel generator)",
        check_latent_diffusion,
        "latent-diffusion",
        reads=fingerprints_read,
        computes=True,
        asks=lambda config: bool(config.needs_teacher),
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}


OWN_LOSSES = {"sre2l": "kl", "rded": "kl", "datm": "soft_ce", "g-vbsm": "mse_ce"}
"""The loss that each method's own code trains students with (GIFT's Figure 1 underlines it)."""


def own_loss(method: str) -> str | None:
    """The spec of the loss that a method was published with; None for coresets, which come with none."""
    return OWN_LOSSES.get(method.partition(":")[0])


def find_method(spec: str) -> tuple[Method, dict[str, Option]]:
    """The method of a spec, and its options.

    `rded:factor=2` names an entry of `METHODS`; `package.module:function` or `package.module:function:key=value`
    names anybody's function of the same shape, whose `config` parameter is annotated with its dataclass.

    Raises:
        UnknownNameError: no such method.
        ConfigError: a function that cannot be imported or does not have the shape.
    """
    if "." in spec.partition(":")[0]:
        return _outside(spec)
    name = spec.partition(":")[0].strip()
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS, "Or name your own as package.module:function.")
    return METHODS[name], parse_spec(spec)[1]


def check_method(spec: str) -> None:
    """Check a method's name and options without running it."""
    method, options = find_method(spec)
    build_config(method.config, options, f"the method {spec.partition(':')[0]!r}")


def check_images(spec: str, data: Dataset, *, ipc: int) -> None:
    """Refuse a set that this data cannot give, before a teacher is trained for it.

    Raises:
        UnknownNameError, ConfigError: from the spec.
        DistillError: too few images.
    """
    method, options = find_method(spec)
    method.check(build_config(method.config, options, f"the method {method.name!r}"), data, ipc)


def check_trajectory(spec: str, epochs: int) -> None:
    """Refuse a method that follows a training longer than this one.

    Raises:
        DistillError: telling how many epochs it needs.
    """
    method, options = find_method(spec)
    if method.teacher != "trajectory":
        return
    config: Any = build_config(method.config, options, f"the method {method.name!r}")
    needed = config.least_epochs
    if epochs < needed:
        raise DistillError(
            f"The method {spec!r} needs a trajectory of {needed} epochs, and there are {epochs}. Train the teacher "
            f"longer, or choose smaller options."
        )


def check_work(spec: str, data: Dataset, teachers: Sequence[Teacher], *, ipc: int) -> tuple[Method, Any]:
    """The method and its configuration, when nothing that can be known before the work speaks against it.

    Raises:
        UnknownNameError, ConfigError: from the spec, or a missing teacher.
        TeacherMismatchError: a teacher that does not fit the data.
        DistillError: too few images.
    """
    method, options = find_method(spec)
    name = method.name
    config: Any = build_config(method.config, options, f"the method {name!r}")
    if ipc < 1:
        raise ConfigError(f"--ipc must be 1 or more. Got {ipc} instead.")
    if method.teacher in ("required", "trajectory") and not teachers:
        raise ConfigError(f"The method {name!r} needs a teacher. Make one with: softlabel teach")
    for teacher in method.looks_at(config, teachers):
        check_teacher(teacher, data.info)
    method.check(config, data, ipc)
    check_trajectory(spec, len(teachers))
    return method, config


def tiles(spec: str) -> int:
    """Patches that an image of such a method's sets consists of.

    Raises:
        UnknownNameError, ConfigError: from the spec.
    """
    method, given = find_method(spec)
    return build_config(RdedConfig, given, "the method 'rded'").factor ** 2 if method.config is RdedConfig else 1


def distill(
    spec: str,
    data: Dataset,
    teachers: Sequence[Teacher] = (),
    *,
    ipc: int,
    seed: int = 0,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> DistilledSet:
    """Make a distilled set of `ipc` images per class from the train split.

    Args:
        spec: a method with options, e.g. `random`, `rded:factor=2,crops=5`.
        teachers: score or embed the images; an ensemble counts by its mean logits. Ignored by a method that looks at
            none; a method that looks at a trajectory takes its checkpoints (`softlabel.training.load_trajectory`).
        seed: names the stream `("distill", method)`.

    Raises:
        UnknownNameError, ConfigError: from the spec, or a missing teacher.
        TeacherMismatchError: a teacher that does not fit the data.
        DistillError: too few images.
    """
    execution = execution or resolve_execution()
    method, config = check_work(spec, data, teachers, ipc=ipc)
    teachers = method.looks_at(config, teachers)
    for teacher in teachers:
        warn_if_weaker(teacher.to(execution.torch_device), data, execution)
    made = method.function(
        config,
        data,
        tuple(teacher.to(execution.torch_device) for teacher in teachers),
        ipc=ipc,
        generator=stream(seed, "distill", method.name),
        execution=execution,
        progress=progress or Silent(),
    )
    _check_made(made, spec, data, ipc)
    return DistilledSet(
        images=made.images,
        targets=made.targets,
        info=data.info,
        method=spec,
        ipc=ipc,
        seed=seed,
        factor=made.factor,
        weights=made.weights,
        provenance={
            "config": plain(config),
            "teachers": [teacher.fingerprint for teacher in teachers],
            **made.provenance,
        },
    )


def _check_made(made: Any, spec: str, data: Dataset, ipc: int) -> None:
    """Refuse what no method may return."""
    expected = torch.arange(data.info.classes).repeat_interleave(ipc)
    if (
        not isinstance(made, Images)
        or made.images.shape != (len(expected), *data.info.image_shape)
        or made.images.dtype != torch.uint8
        or not torch.equal(made.targets.cpu(), expected)
    ):
        shape = "x".join(map(str, (len(expected), *data.info.image_shape)))
        raise ConfigError(
            f"The method {spec!r} did not keep its word: it must return softlabel.distill.Images with uint8 images "
            f"{shape}, {ipc} for each of the {data.info.classes} classes, class after class."
        )


def _outside(spec: str) -> tuple[Method, dict[str, Option]]:
    module_name, _, rest = spec.partition(":")
    function_name, _, tail = rest.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module_name), function_name)
        config: Any = typing.get_type_hints(function).get("config")
    except Exception as error:  # a stranger's module may fail in any way
        raise ConfigError(
            f"The method {spec!r} cannot be imported ({type(error).__name__}: {error}). Write package.module:function, "
            f"and check that the package is on the Python path."
        ) from error
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        raise ConfigError(f"The method {spec!r} must annotate its first parameter `config` with a frozen dataclass.")
    try:
        config()
    except TypeError as error:
        raise ConfigError(
            f"The method {spec!r} has a config with settings that lack a default ({error}). Give every field one."
        ) from error
    summary = (function.__doc__ or "").strip().partition("\n")[0]
    options = parse_spec(f"{function_name}:{tail}")[1]
    return Method(config, function, "optional", True, summary, _nothing, f"{module_name}:{function_name}"), options


def _nothing(config: Any, data: Dataset, ipc: int) -> None:
    """Nothing is known of somebody's own method before it runs."""
