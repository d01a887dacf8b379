"""softlabel generator: a latent diffusion model of the real images, for the method latent-diffusion."""

from dataclasses import dataclass, field
from pathlib import Path

from softlabel.cli._options import Data, Machine, Session, Teachers
from softlabel.cli._output import print_json, print_table
from softlabel.core import ConfigError, build_config, human_bytes, human_seconds, parse_spec
from softlabel.generate import (
    AutoencoderConfig,
    Course,
    GeneratorConfig,
    adopt_autoencoder,
    launched,
    load_autoencoder,
    load_generator,
    train_autoencoder,
    train_generator,
)
from softlabel.store import is_complete, read_artifact


@dataclass(frozen=True, kw_only=True)
class MakeGenerator:
    """Train a generator: an autoencoder, and a class-conditional denoiser of its latents (latent diffusion).

    Several processes share the work under accelerate launch. What is finished is found; what was interrupted goes on.

    Example: softlabel generator --data fashion-mnist --image-size 32x32 --out generator
    """

    autoencoder: str = "kl"
    """kl or vq with its options, as in kl:factor=4,width=32,epochs=4; or the folder of one: softlabel's, or a
    pretrained AutoencoderKL or VQModel as diffusers keeps it."""
    denoiser: str = GeneratorConfig.denoiser
    """dit or unet with its options, as in dit:width=192,depth=6. See: softlabel ls denoisers"""
    schedule: str = GeneratorConfig.schedule
    """How latents are noised. See: softlabel ls noise"""
    drop: float = GeneratorConfig.drop
    """Share of the training in which the class is left out, for guidance."""
    epochs: int = GeneratorConfig.epochs
    """Of the denoiser, over the images."""
    batch: int = GeneratorConfig.batch
    """Batch size of the denoiser."""
    lr: float = GeneratorConfig.lr
    """Peak learning rate of the denoiser."""
    average: float = GeneratorConfig.average
    """Weight of the past in the moving average of the weights that generates."""
    flip: bool = GeneratorConfig.flip
    """Mirror half of the images, for the autoencoder too."""
    seed: int = 0
    """Seed of initialisation, order and noise."""
    out: Path | None = None
    """Folder to keep it in. Default: its place in the store."""
    data: Data = field(default_factory=Data)
    teachers: Teachers = field(default_factory=Teachers)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        names = ("denoiser", "schedule", "drop", "epochs", "batch", "lr", "average", "flip")
        config = GeneratorConfig(**{name: getattr(self, name) for name in names})
        given = Path(self.autoencoder)
        coder = None if given.is_dir() else self._autoencoder()
        teachers = self.teachers.load() if self.teachers.teacher else []
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        data = self.data.options(teachers[0].info if teachers else None).load(session.progress)
        if coder is not None:
            coder.check(data.info)
        processes = launched(execution.device)
        if self.machine.dry_run:
            steps = {"denoiser_steps": _steps(config.course(), len(data.train))}
            if coder is not None:
                steps["autoencoder_steps"] = _steps(coder.course(), len(data.train))
            print_json(steps) if self.machine.json else print_table(
                "Plan", list(steps), [[f"{count:,}" for count in steps.values()]]
            )
            return
        if coder is not None:
            path = train_autoencoder(
                data, coder, store=store, execution=execution, seed=self.seed, teachers=teachers, processes=processes,
                progress=session.progress,
            )  # fmt: skip
        elif is_complete(given):
            path = given
        else:
            path = adopt_autoencoder(given, data, store=store, execution=execution, teachers=teachers)
        made = train_generator(
            data, load_autoencoder(path), config, store=store, execution=execution, seed=self.seed, processes=processes,
            out=self.out, progress=session.progress,
        )  # fmt: skip
        if processes.first:
            self._tell(data.info.name, path, made)

    def _autoencoder(self) -> AutoencoderConfig:
        name, options = parse_spec(self.autoencoder)
        if "flip" in options or "kind" in options:
            raise ConfigError("--flip and the name before the colon say that of the autoencoder too. Leave it out.")
        return build_config(
            AutoencoderConfig, {"kind": name, "flip": self.flip, **options}, f"the autoencoder {name!r}"
        )

    def _tell(self, data: str, coder: Path, made: Path) -> None:
        meta, own = read_artifact(coder, verify=False).meta, read_artifact(made, verify=False).meta
        size = load_generator(made).size
        if self.machine.json:
            print_json({"generator": str(made), "autoencoder": str(coder), "bytes": size, **own, "psnr": meta["psnr"]})
            return
        row = [f"{meta['psnr']:.1f} dB", human_bytes(size), human_seconds(own["train_seconds"])]
        columns = ["images come back at", "bytes", "denoiser's training"]
        if "teacher_accuracy_reconstructed" in meta:
            columns.append("teacher's accuracy on images, and on what comes back")
            row.append(f"{100 * meta['teacher_accuracy']:.1f} and {100 * meta['teacher_accuracy_reconstructed']:.1f} %")
        print_table(f"Generator of {data}", columns, [row], numbers=len(columns))
        print(f"generator: {made}")


def _steps(course: Course, images: int) -> int:
    return course.epochs * (images // course.batch)
