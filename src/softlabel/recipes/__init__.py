"""Recipes: functions that return a complete configuration. `softlabel run NAME` runs one.

A variant calls another recipe and changes what differs. The library never imports this package; only the command
line does. It lives inside the package so that an installed softlabel has it.
"""

from collections.abc import Callable
from dataclasses import replace

from softlabel.core import UnknownNameError
from softlabel.evaluation import Comparison, DataOptions, Recipe, SetOptions, TeacherOptions, find_protocol
from softlabel.recipes._generated import cifar10_generated, cifar10_generated_quick, fashion_mnist_generated
from softlabel.recipes._lab import LAB, find_lab
from softlabel.recipes._lab_setting import LabSetting
from softlabel.recipes._studies import STUDIES, Changes, change, find_study
from softlabel.training import TEACHER_PROTOCOL

__all__ = [
    "LAB",
    "RECIPES",
    "STUDIES",
    "Changes",
    "LabSetting",
    "change",
    "cifar10_generated",
    "cifar10_generated_quick",
    "cifar10_rded_ipc10",
    "digits_quick",
    "fashion_mnist_generated",
    "fashion_mnist_rded_ipc10",
    "find_lab",
    "find_recipe",
    "find_study",
    "tiny_imagenet_rded_ipc10",
]


def cifar10_rded_ipc10() -> Recipe:
    """Random and RDED images of CIFAR-10, IPC 10, ConvNet-3, protocol gift with 300 epochs, AdamW."""
    return Recipe(
        name="cifar10-rded-ipc10",
        summary="CIFAR-10, ConvNet-3: random and RDED images, IPC 10, hard CE / KL / GIFT, 300 epochs, 3 seeds",
        data=DataOptions(spec="cifar10"),
        teacher=TeacherOptions(arch="convnet-3"),
        sets=(
            SetOptions(name="random", method="random", ipc=10),
            SetOptions(name="rded", method="rded:factor=1,crops=5,images=300", ipc=10),
        ),
        comparison=Comparison(
            name="cifar10-rded-ipc10",
            title="CIFAR-10 in 100 images: what the labels do",
            protocol=find_protocol("gift", epochs=300),
            students=("convnet-3",),
            losses=("ce", "kl", "gift"),
            full_epochs=3,
        ),
    )


def fashion_mnist_rded_ipc10() -> Recipe:
    """The demo: Fashion-MNIST on two CPU cores in minutes. A narrow ConvNet, and fewer epochs than the papers take."""
    base = cifar10_rded_ipc10()
    return replace(
        base,
        name="fashion-mnist-rded-ipc10",
        summary="the demo: Fashion-MNIST, ConvNet-3 of width 64, random and RDED images, IPC 10, 3 seeds; minutes",
        data=DataOptions(spec="fashion-mnist"),
        teacher=TeacherOptions(
            arch="convnet-3:width=64", protocol=replace(TEACHER_PROTOCOL, epochs=4, views="shift", batch=256)
        ),
        comparison=replace(
            base.comparison,
            name="fashion-mnist-rded-ipc10",
            title="Fashion-MNIST in 100 images: what the labels do",
            protocol=find_protocol("gift", epochs=150),
            students=("convnet-3:width=64",),
            full_epochs=1,
        ),
    )


def digits_quick() -> Recipe:
    """The smallest whole story: scikit-learn's 8x8 digits, well under a minute."""
    base = cifar10_rded_ipc10()
    return replace(
        base,
        name="digits-quick",
        summary="the smallest whole story: scikit-learn's digits, 8 px, IPC 2, 3 seeds; under a minute",
        data=DataOptions(spec="digits"),
        teacher=TeacherOptions(
            arch="convnet-2:width=32", protocol=replace(TEACHER_PROTOCOL, epochs=10, views="none", batch=64)
        ),
        sets=(
            SetOptions(name="random", method="random", ipc=2),
            SetOptions(name="rded", method="rded:factor=1,crops=3,images=60", ipc=2),
        ),
        comparison=replace(
            base.comparison,
            name="digits-quick",
            title="The 8x8 digits in 20 images: what the labels do",
            protocol=replace(
                find_protocol("gift"),
                name="gift, shifted digits",
                source="GIFT's protocol with small shifts as the only view: a flip changes a digit's class.",
                epochs=200,
                views="shift",
            ),
            students=("convnet-2:width=32",),
            full_epochs=30,
        ),
    )


def tiny_imagenet_rded_ipc10() -> Recipe:
    """Tiny-ImageNet at 64 px, ConvNet-4: hours on a CPU, made for a GPU."""
    base = cifar10_rded_ipc10()
    return replace(
        base,
        name="tiny-imagenet-rded-ipc10",
        summary="Tiny-ImageNet, ConvNet-4: random and RDED images, IPC 10, hard CE / KL / GIFT, 300 epochs; for a GPU",
        data=DataOptions(spec="tiny-imagenet-200"),
        teacher=TeacherOptions(arch="convnet-4", protocol=replace(TEACHER_PROTOCOL, epochs=30)),
        comparison=replace(
            base.comparison,
            name="tiny-imagenet-rded-ipc10",
            title="Tiny-ImageNet in 2000 images: what the labels do",
            students=("convnet-4",),
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits-quick": digits_quick,
    "fashion-mnist-rded-ipc10": fashion_mnist_rded_ipc10,
    "cifar10-rded-ipc10": cifar10_rded_ipc10,
    "tiny-imagenet-rded-ipc10": tiny_imagenet_rded_ipc10,
    "fashion-mnist-generated": fashion_mnist_generated,
    "cifar10-generated": cifar10_generated,
    "cifar10-generated-quick": cifar10_generated_quick,
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownNameError: no such recipe.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]()
