"""What a comparison refuses before any work: data, sets and teachers that it cannot bear."""

from collections.abc import Iterable, Sequence

from softlabel.core import ConfigError, Dataset, DistilledSet, TeacherMismatchError
from softlabel.evaluation._comparison import Comparison, SetPaths, Stored, Teachers, soft_families
from softlabel.evaluation._students import check_classes
from softlabel.training import Teacher, check_teacher


def check_data(comparison: Comparison, data: Dataset) -> None:
    """Refuse what the data cannot bear, before a teacher is trained on it.

    Raises:
        ConfigError: something to be chosen without a selection split, more class-incremental steps than classes, or
            an edit of an entry that labels do not have.
    """
    if (comparison.tuning is not None or comparison.selection) and data.selection is None:
        chosen = "Learning rates are tuned" if comparison.tuning is not None else "This study chooses"
        raise ConfigError(
            f"{chosen} on the selection split, and there is none. Set a share of the train split aside with "
            f"--selection 0.1, and train the teacher and make the sets without it."
        )
    if comparison.tuning is not None and comparison.tuning.seed in comparison.seeds:
        raise ConfigError(f"The seed {comparison.tuning.seed} chooses learning rates. Take other seeds for the arms.")
    if comparison.steps > data.info.classes:
        raise ConfigError(
            f"{comparison.steps} class-incremental steps need as many classes; {data.info.name} has "
            f"{data.info.classes}. Ask for fewer steps."
        )
    for spec in comparison.label_specs:
        spec.check(data.info.classes)


def check_inputs(
    comparison: Comparison,
    data: Dataset,
    teachers: Teachers,
    sets: Sequence[SetPaths],
    loaded: Iterable[DistilledSet] = (),
    stored: Stored | None = None,
) -> None:
    """Refuse what would fail, or mix up arms, after hours of training; `check_data`'s too.

    Args:
        loaded: those of the distilled sets that are there already.
        stored: labels kept beside sets; their families need no teacher.

    Raises:
        ConfigError: two families of sets of one name, or soft losses without a teacher.
        TeacherMismatchError: a teacher, or a set, for other data.
    """
    check_data(comparison, data)
    for distilled in loaded:
        check_classes(distilled, data)
    names = [paths.name for paths in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"Every family of distilled sets needs a name of its own. Got {', '.join(names)}.")
    soft = soft_families(comparison, names)
    unlabelled = soft - {name for name, _ in stored or {}}
    if comparison.soft_losses and unlabelled and not all(teachers.get(name) for name in comparison.teachers):
        raise ConfigError(
            f"The losses {', '.join(comparison.soft_losses)} need a teacher. Give one with --teacher, or compare under "
            f"the loss ce alone."
        )
    if stored and comparison.steps:
        raise ConfigError("Stored labels are for all classes at once. Give a teacher for class-incremental steps.")
    comparison.check_spaces(soft, stored or {})
    for group in teachers.values() if comparison.soft_losses else ():
        for teacher in group:
            check_teacher(teacher, data.info)
    single = [teacher for name in comparison.teachers for teacher in teachers.get(name, ()) if teacher.of_set]
    if single and comparison.soft_losses:
        own = [name for name in names if name in soft]
        _check_single(single, comparison, own, [distilled.digest for distilled in loaded])


def _check_single(
    labelers: Sequence[Teacher], comparison: Comparison, names: Sequence[str], digests: Sequence[str]
) -> None:
    """Refuse labelers of one set that would label others, or parts of it."""
    if comparison.steps:
        raise ConfigError("A labeler of one set labels all of it. Take another for class-incremental steps.")
    made = f"The labeler {labelers[0].arch} was made for the images of one distilled set"
    if len(names) > 1:
        raise TeacherMismatchError(
            f"{made}, and there are several here ({', '.join(names)}). Compare under one that is for all (softlabel "
            f"labeler without --set)."
        )
    made_for = {labeler.of_set for labeler in labelers}
    if len(made_for) > 1 or (digests and not made_for <= set(digests)):
        raise TeacherMismatchError(
            f"{made}, and the set here ({', '.join(names)}) is another. Make one for it (softlabel labeler --set), or "
            f"one for all (without --set)."
        )
