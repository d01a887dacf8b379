"""Recipes that generate their images: a latent diffusion model of the real ones, beside random real images."""

from dataclasses import replace

from softlabel.evaluation import (
    Comparison,
    DataOptions,
    GeneratorOptions,
    Recipe,
    SetOptions,
    TeacherOptions,
    TimedSet,
    find_protocol,
)
from softlabel.generate import AutoencoderConfig, GeneratorConfig
from softlabel.training import TEACHER_PROTOCOL, Checks

STEPS = 8
WAYS = {
    "generated": f"latent-diffusion:steps={STEPS}",
    "unguided": f"latent-diffusion:steps={STEPS},guidance=1",
    "best of 4": f"latent-diffusion:steps={STEPS},how=best",
    "prototypes": f"latent-diffusion:steps={STEPS},how=prototypes",
}
"""Names of families, and the spec of each."""
LOSSES = ("ce", "soft_ce", "gift")
PLOTS = ({"kind": "bars", "title": "Images and labels", "group": "set", "bar": "loss"},)


def fashion_mnist_generated() -> Recipe:
    """Fashion-MNIST at 32 px, sized for ninety minutes of two CPU cores."""
    return Recipe(
        name="fashion-mnist-generated",
        summary="Fashion-MNIST, latent diffusion: generated, unguided, best-of-4 and prototype images beside random "
        "real ones, IPC 10 and 50, and all of ten seconds; hard labels, soft labels and GIFT, 3 seeds; 1.5 hours",
        data=DataOptions(spec="fashion-mnist", image_size=(32, 32)),
        teacher=TeacherOptions(
            arch="convnet-3:norm=instance,width=64",
            protocol=replace(TEACHER_PROTOCOL, epochs=3, views="flip-crop", batch=256),
        ),
        generator=GeneratorOptions(
            autoencoder=AutoencoderConfig(width=16, epochs=3),
            denoiser=GeneratorConfig(denoiser="unet:width=64", epochs=10),
        ),
        sets=_sets((10, 50)),
        timed=(
            TimedSet(name="all of ten seconds", method=WAYS["generated"], seconds=10),
            TimedSet(name="all of ten seconds, unguided", method=WAYS["unguided"], seconds=10),
        ),
        comparison=Comparison(
            name="fashion-mnist-generated",
            title="Fashion-MNIST, generated: what images and labels do",
            protocol=find_protocol("gift", epochs=100),
            students=("convnet-3:norm=instance,width=32",),
            losses=LOSSES,
            full_epochs=2,
            plots=PLOTS,
        ),
    )


def cifar10_generated() -> Recipe:
    """CIFAR-10, made for a GPU."""
    base = fashion_mnist_generated()
    return replace(
        base,
        name="cifar10-generated",
        summary="CIFAR-10, latent diffusion: the same comparison at sizes for a GPU",
        data=DataOptions(spec="cifar10"),
        teacher=TeacherOptions(arch="convnet-3:norm=instance", protocol=replace(TEACHER_PROTOCOL, epochs=20)),
        generator=GeneratorOptions(
            autoencoder=AutoencoderConfig(factor=2, width=64, layers=2, epochs=20),
            denoiser=GeneratorConfig(
                denoiser="dit:width=384,depth=12,heads=6,patch=2", epochs=400, batch=512, lr=3e-4, average=0.9999
            ),
        ),
        comparison=replace(
            base.comparison,
            name="cifar10-generated",
            title="CIFAR-10, generated: what images and labels do",
            protocol=find_protocol("gift", epochs=300),
            students=("convnet-3:norm=instance",),
            full_epochs=10,
        ),
    )


def cifar10_generated_quick() -> Recipe:
    """The same at a size of minutes on two CPU cores: whether everything works, not who wins."""
    base = cifar10_generated()
    return replace(
        base,
        name="cifar10-generated-quick",
        summary="the same in minutes on two CPU cores: to see that everything works; its images are not good",
        teacher=TeacherOptions(
            arch="convnet-3:norm=instance,width=32", protocol=replace(TEACHER_PROTOCOL, epochs=1, batch=256)
        ),
        generator=GeneratorOptions(
            autoencoder=AutoencoderConfig(width=16, epochs=1),
            denoiser=GeneratorConfig(denoiser="dit:width=64,depth=2,heads=2", epochs=2, batch=256),
        ),
        sets=_sets((10,)),
        timed=(TimedSet(name="all of three seconds", method=WAYS["generated"], seconds=3),),
        comparison=replace(
            base.comparison,
            name="cifar10-generated-quick",
            title="CIFAR-10, generated: a quick look",
            protocol=replace(find_protocol("gift", epochs=15), checks=Checks(count=1)),
            students=("convnet-3:norm=instance,width=32",),
            full_epochs=1,
        ),
    )


def _sets(ipcs: tuple[int, ...]) -> tuple[SetOptions, ...]:
    ways = {"random": "random", **WAYS}
    return tuple(
        SetOptions(name=f"{name}, IPC {ipc}", method=method, ipc=ipc) for ipc in ipcs for name, method in ways.items()
    )
