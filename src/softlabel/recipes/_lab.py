"""The studies of "A label is worth a thousand images" (NeurIPS 2024) as recipes: `softlabel lab NAME`.

Random real images, one fixed label per image from an early-stopped expert, and a student trained with plain soft
cross-entropy. The full settings are made for two CPU cores: fewer epochs than the paper's, of experts (constant rate
0.01, where its CIFAR-10 experts take 0.0005 and many more epochs) and of students (its own form takes 3000).
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from softlabel.core import ConfigError, UnknownNameError
from softlabel.evaluation import (
    DataOptions,
    Labeler,
    LearnedSet,
    Recipe,
    SetOptions,
)
from softlabel.lab import FULL_LABELS
from softlabel.labels import LabelSpec, Learning
from softlabel.losses import Loss
from softlabel.recipes._lab_bytes import check_pools, fits, in_jpeg, kept_arms, left_out, regimes, small
from softlabel.recipes._lab_hello import FULL, hello_labelers, patches
from softlabel.recipes._lab_setting import EARLY, LabSetting
from softlabel.recipes._lab_study import experts, lab_study, of_epoch, random_images, shown_epochs


def baseline(setting: LabSetting) -> Recipe:
    """Hard labels, one soft label per image, labels per view, and GIFT, on the same random images."""
    return lab_study(
        "lab-baseline",
        "hard labels, one soft label per image, labels per view, and GIFT, on the same random images",
        "What a soft label is worth on random images",
        setting,
        ipcs=setting.ipcs((1, 10), (1, 10, 50)),
        losses=("ce", "soft_ce", "gift"),
        labels=("fixed", "online"),
        epochs=(setting.early,),
        plots=({"kind": "bars", "title": "Labels on random images", "group": "set", "bar": "loss",
                "where": {"labels": ["hard", "fixed"]}},
               {"kind": "bars", "title": "One label per image, or one per view", "group": "set", "bar": "labels",
                "where": {"loss": "soft_ce"}}),
    )  # fmt: skip


def epochs(setting: LabSetting) -> Recipe:
    """Which epoch of the expert labels best, by the images per class; chosen on the selection split."""
    ipcs = setting.ipcs((1, 10), (1, 10, 50))
    along = setting.along
    return lab_study(
        "lab-epochs",
        "which epoch of the expert labels best, by the images per class; chosen on the selection split",
        "When to stop the expert",
        setting,
        ipcs=ipcs,
        losses=("soft_ce",),
        epochs=along,
        selection=True,
        plots=({"kind": "epochs", "title": "Accuracy by the expert's epoch", "axis": "teacher",
                "x": shown_epochs(along), "line": "set", "x_title": "epochs that the expert was trained", "log": True},
               {"kind": "heat", "title": "Epochs and images per class", "rows": "set", "columns": "teacher"}),
    )  # fmt: skip


def temperatures(setting: LabSetting) -> Recipe:
    """Whether a temperature can mend an over-trained expert."""
    along = setting.along
    values = (0.5, 1, 2) if setting.quick else (0.5, 1, 1.5, 2, 4)
    labels = tuple(f"fixed+temper:temperature={value:g}" for value in values)
    return lab_study(
        "lab-temperatures",
        "whether a temperature can mend an over-trained expert; chosen on the selection split",
        "The expert's epoch and its labels' temperature",
        setting,
        ipcs=setting.ipcs((10,), (10,)),
        losses=("soft_ce",),
        labels=labels,
        epochs=along,
        selection=True,
        plots=({"kind": "heat", "title": "Temperatures and epochs", "rows": "labels", "columns": "teacher"},),
    )


def ensembles(setting: LabSetting) -> Recipe:
    """How many experts are worth it: mean logits of one, two, three and more."""
    sizes = (1, 2) if setting.quick else (1, 2, 3)
    stops = setting.stops or tuple(dict.fromkeys((setting.early, setting.length)))
    labelers = tuple(
        Labeler(name=experts(size, epoch), epoch=epoch, seeds=tuple(range(size)))
        for epoch in stops for size in sizes
    )  # fmt: skip
    return lab_study(
        "lab-ensembles",
        "mean logits of one, two or three experts",
        "How many experts",
        setting,
        ipcs=setting.ipcs((10,), (1, 10)),
        losses=("soft_ce",),
        labelers=labelers,
        pairs=tuple(
            ({"teacher": experts(size, epoch)}, {"teacher": experts(1, epoch)})
            for epoch in stops
            for size in sizes
            if size > 1
        ),
        plots=({"kind": "bars", "title": "Experts", "group": "set", "bar": "teacher"},),
    )


def anatomy(setting: LabSetting) -> Recipe:
    """What in a label does the work: entries swapped, cut off, levelled, shuffled."""
    swaps = [f"fixed+swap:rank={rank}" for rank in setting.ranks]
    keeps = [f"fixed+keep:top={top}" for top in setting.kept]
    tails = [f"fixed+tail:top={top}" for top in setting.kept[:-1]]
    others = ["fixed+argmax", "fixed+smooth", "fixed+shuffle"]
    whole = keeps[-1]  # all entries kept: the label itself, which the others are compared with
    return lab_study(
        "lab-anatomy",
        "a label's entries swapped, cut off, levelled and shuffled",
        "What in a label does the work",
        setting,
        ipcs=setting.ipcs((10,), (1, 10)),
        losses=("ce", "soft_ce", "soft_ce_mass"),
        labels=(whole, *swaps, *keeps[:-1], *tails, *others),
        epochs=(setting.early,),
        # Only labels of which something is missing tell the two losses apart.
        keep=({"loss": ("ce", "soft_ce")}, {"loss": ("soft_ce_mass",), "labels": keeps}),
        plots=(
            {"kind": "epochs", "title": "One entry swapped with the smallest", "axis": "labels", "line": "set",
             "x": dict(zip(swaps, setting.ranks, strict=True)), "x_title": "place of the entry, 1 the largest",
             "log": True, "where": {"loss": "soft_ce"}},
            *({"kind": "epochs", "title": f"The largest entries kept, {told}", "axis": "labels", "line": "set",
               "x": dict(zip(keeps, setting.kept, strict=True)), "x_title": "entries kept", "log": True,
               "where": {"loss": loss}}
              for loss, told in (("soft_ce", "what is left scaled up to 1"), ("soft_ce_mass", "as they are"))),
            {"kind": "epochs", "title": "The smaller entries levelled", "axis": "labels", "line": "set",
             "x": dict(zip(tails, setting.kept, strict=False)), "x_title": "entries left as they are", "log": True,
             "where": {"loss": "soft_ce"}},
            {"kind": "bars", "title": "Other edits", "group": "set", "bar": "labels",
             "where": {"labels": ["hard", whole, *others], "loss": ["ce", "soft_ce"]}},
        ),
    )  # fmt: skip


def learned(setting: LabSetting) -> Recipe:
    """Labels learned through students' training, no expert asked; how far they are from experts' labels."""
    ipcs = setting.ipcs((1,), (1, 10))
    along = setting.along
    learning = Learning(steps=30, horizon=20, window=5) if setting.quick else Learning()
    families = tuple(
        LearnedSet(name=f"{random_images(ipc)}, learned", of=random_images(ipc), learning=learning) for ipc in ipcs
    )
    return lab_study(
        "lab-learned",
        "labels learned through students' training, and how far they are from experts' labels",
        "Labels that no expert made",
        setting,
        ipcs=ipcs,
        losses=("ce", "soft_ce"),
        epochs=along,
        learned=families,
        keep=({"set": tuple(random_images(ipc) for ipc in ipcs)}, {"set": tuple(one.name for one in families),
                                                              "loss": ("soft_ce",)}),
        plots=({"kind": "bars", "title": "Learned labels and experts'", "group": "set", "bar": "teacher"},),
    )  # fmt: skip


def zero_shot(setting: LabSetting) -> Recipe:
    """What a student knows of a class whose images, or whose entries in all other labels, were removed."""
    step = max(1, setting.classes // (2 if setting.quick else 10))
    absent = range(0, setting.classes, step)
    ipc, *more = setting.ipcs((10,), (10,))
    if more:
        raise ConfigError("This study takes one number of images per class. Give --ipc one.")
    whole, control = f"fixed+keep:top={setting.classes}", random_images(ipc)
    sets = [SetOptions(name=control, method="random", ipc=ipc)]
    sets += [SetOptions(name=f"{control}, without class {c}", method="random", ipc=ipc, without=(c,)) for c in absent]
    entries = {str(c): f"fixed+forget:index={c}" for c in absent}
    return lab_study(
        "lab-zero-shot",
        "what a student knows of a class whose images, or whose entries in all other labels, were removed",
        "Knowing a class without its images",
        setting,
        sets=tuple(sets),
        losses=("soft_ce_mass",),
        labels=(whole, *entries.values()),
        epochs=(setting.early,),
        keep=({"labels": (whole,)}, {"set": (control,)}),
        per_class=True,
        plots=({"kind": "absent", "set": control, "labels": whole, "entries": entries,
                "images": {str(c): options.name for c, options in zip(absent, sets[1:], strict=True)}},),
    )  # fmt: skip


def images(setting: LabSetting) -> Recipe:
    """Which real images to take, all with the same expert's labels."""
    early = min(10, setting.length)
    methods: tuple[str, ...] = (
        *("random", "ce-decile:decile=0", "ce-decile:decile=9", "stratified", "herding", "k-centre"),
        *(f"el2n:epochs={early}", f"el2n:epochs={early},easy=true", "forgetting", "cad-prune"),
    )
    if setting.quick:
        methods = ("random", "ce-decile:decile=0", "ce-decile:decile=9", f"el2n:epochs={early},easy=true")
    ipcs = setting.ipcs((10,), (1, 10))
    sets = tuple(
        SetOptions(name=method if len(ipcs) == 1 else f"{method}, IPC {ipc}", method=method, ipc=ipc)
        for ipc in ipcs for method in methods
    )  # fmt: skip
    return lab_study(
        "lab-images",
        "random, easy, hard, typical and spread-out images, all with the same labels",
        "Which images to take",
        setting,
        sets=sets,
        losses=("ce", "soft_ce"),
        epochs=(setting.early,),
        plots=tuple(
            {
                "kind": "bars",
                "title": f"Images, {ipc} per class",
                "group": "set",
                "bar": "loss",
                "where": {"set": [options.name for options in sets if options.ipc == ipc]},
            }
            for ipc in ipcs
        ),
    )


def scaling(setting: LabSetting) -> Recipe:
    """Accuracy over images per class, entries kept and the expert's epoch; a law is fitted to it."""
    ipcs = setting.ipcs((1, 2, 5, 10), (1, 2, 5, 10, 20))
    quick, full = (max(1, round(EARLY * setting.length)), setting.length), setting.along[1::2] or setting.along
    along = setting.stops or tuple(dict.fromkeys(quick if setting.quick else full))
    kept = setting.kept
    labels = {f"fixed+keep:top={top}": top for top in reversed(kept)}  # whole labels first: the question
    names = {random_images(ipc): ipc for ipc in ipcs}
    curves = [
        {"kind": "epochs", "title": f"Labels of epoch {epoch}", "axis": "set", "x": names, "line": "labels",
         "x_title": "images per class", "log": True, "where": {"teacher": ["none", of_epoch(epoch)]}}
        for epoch in along
    ]  # fmt: skip
    surface = {"kind": "surface", "ipc": names, "epochs": shown_epochs(along), "kept": labels}
    return lab_study(
        "lab-scaling",
        "accuracy over images per class, entries kept and the expert's epoch, with a fitted law (softlabel lab advise)",
        "Images or knowledge",
        setting,
        ipcs=ipcs,
        losses=("ce", "soft_ce_mass"),
        labels=tuple(labels),
        epochs=along,
        plots=(surface, *curves),
    )


def bytes_(setting: LabSetting) -> Recipe:
    """What accuracy the bytes of stored labels buy, however they are stored, and those of a teacher shipped instead."""
    stop = setting.latest
    usual = regimes(setting.classes, setting.student_epochs)
    specs = usual if setting.labels is None else tuple(LabelSpec.parse(spec).spec for spec in setting.labels)
    losses = setting.losses or ("ce", "soft_ce", "gift")
    if setting.labels is None:
        specs = tuple(spec for spec in specs if any(fits(loss, spec) for loss in losses))
    ipcs = setting.ipcs((10,), (10, 50))
    whole = tuple(SetOptions(name=random_images(ipc), method="random", ipc=ipc) for ipc in ipcs)
    check_pools(specs, setting.student_epochs)
    lossy = () if setting.quick or not small(specs, losses) else tuple(in_jpeg(options) for options in whole)
    study = lab_study(
        "lab-bytes",
        "accuracy over bytes: codecs, fewer labels, one label per image, the teacher itself, and JPEG images",
        "What the bytes of labels buy",
        setting,
        sets=(*whole, *lossy),
        losses=losses,
        labels=specs,
        epochs=(stop,),
        keep=kept_arms(specs, losses, [options.name for options in whole], [options.name for options in lossy]),
        notes=tuple(left_out(specs, losses)),
        pairs=tuple(({"labels": spec}, {"labels": FULL_LABELS}) for spec in specs if spec != FULL_LABELS),
        plots=({"kind": "bytes"},),
    )
    # Full labels are those of every view, whatever pool a protocol has of its own.
    protocol = replace(study.comparison.protocol, label_epochs=0)
    return replace(study, comparison=replace(study.comparison, protocol=protocol))


def hello(setting: LabSetting) -> Recipe:
    """HeLlO's labelers beside the teachers that they replace: a probe, weak teachers, low-rank updates and so on."""
    labelers = hello_labelers(setting.hello, setting.weak, setting.parts)
    full, last = LabelSpec.parse("replay").spec, labelers[-1].name
    taught = [one for one in labelers if one.hello is not None]
    whole = tuple(SetOptions(name=random_images(ipc), method="random", ipc=ipc) for ipc in setting.ipcs((10,), (10,)))
    updating = not setting.quick if setting.parts is None else "update" in setting.parts
    small = tuple(patches(options.ipc, last) for options in whole) if updating else ()
    random = {"set": [options.name for options in whole]}
    losses = setting.losses or ("ce", "mse_ce", "gift")
    study = lab_study(
        "lab-hello",
        "HeLlO's labelers beside the teachers that they replace, part by part",
        "What a labeler of few bytes is worth",
        replace(setting, protocol=setting.protocol or "gift"),
        sets=(*whole, *(options for options, _ in small)),
        losses=losses,
        labels=(full, "online"),
        labelers=labelers,
        keep=(
            *({"loss": (loss,), **random} for loss in losses if not Loss.parse(loss).needs_teacher),
            {"teacher": (FULL,), **random},
            {"labels": ("online",), **random},
            {"labels": ("online",), "teacher": (last,)},  # patches, before and after their update
        ),
        pairs=(
            *(({"teacher": later.name}, {"teacher": earlier.name}) for earlier, later in pairwise(taught)),
            *(({"teacher": one.name, "labels": "online"}, {"teacher": FULL, "labels": full}) for one in labelers
              if one.name != FULL),
        ),
        plots=({"kind": "bytes"}, {"kind": "bars", "title": "Labelers", "group": "teacher", "bar": "loss",
                                   "where": {"labels": ["online", "hard"]}}),
    )  # fmt: skip
    return replace(study, updated=tuple(changed for _, changed in small))


LAB: dict[str, Callable[[LabSetting], Recipe]] = {
    "baseline": baseline,
    "epochs": epochs,
    "temperatures": temperatures,
    "ensembles": ensembles,
    "images": images,
    "anatomy": anatomy,
    "learned": learned,
    "zero-shot": zero_shot,
    "scaling": scaling,
    "bytes": bytes_,
    "hello": hello,
}


def find_lab(name: str, setting: LabSetting | None = None, data: DataOptions | None = None) -> Recipe:
    """The recipe of the label study of that name.

    Args:
        data: what it is for; None is CIFAR-10 with a tenth of its train split set aside.

    Raises:
        UnknownNameError: no such study.
    """
    if name not in LAB:
        raise UnknownNameError("label study", name, LAB)
    setting = setting or LabSetting()
    setting.require_study(name)
    recipe = LAB[name](setting)
    return recipe if data is None else replace(recipe, data=data)
