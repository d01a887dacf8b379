"""softlabel generator: a latent diffusion model of the real images, for the method latent-diffusion."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softlabel.cli._options import Data, Machine, Session, Teachers
from softlabel.cli._output import print_json, print_plan, print_table
from softlabel.core import ConfigError, Dataset, Silent, build_config, human_bytes, human_seconds, parse_spec
from softlabel.evaluation import GeneratorOptions, PlanLine, plan_generator
from softlabel.generate import (
    KINDS,
    AutoencoderConfig,
    GeneratorConfig,
    GivenAutoencoder,
    Processes,
    adopt_autoencoder,
    check_generator_options,
    forecast_denoiser,
    generator_places,
    given_autoencoder,
    launched,
    load_autoencoder,
    load_generator,
    place_on,
    survives,
    train_autoencoder,
    train_generator,
)
from softlabel.store import Store, is_complete, read_artifact
from softlabel.training import Execution, Teacher, check_teacher


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
        coder = self._autoencoder()
        teachers = self.teachers.load() if self.teachers.teacher else []
        execution = self.machine.execution()
        processes = launched(execution.device)
        if processes.count > 1 and not self.machine.resume:
            raise ConfigError("--no-resume is for one process. Of several, choose a new --store instead.")
        store, progress = self.machine.open_store(self.out), session.progress if processes.first else Silent()
        data = self.data.options(teachers[0].info if teachers else None).load(progress)
        for teacher in teachers:
            check_teacher(teacher, data.info)
        processes.part(config.batch)
        found, path = self._check(data, coder, config, processes, store, execution)
        if self.machine.dry_run:
            print_plan(self._plan(data, found, path, config, store, execution), execution, self.machine.json)
            return
        if isinstance(coder, AutoencoderConfig):
            path = train_autoencoder(
                data, coder, store=store, execution=execution, seed=self.seed, processes=processes, progress=progress
            )
        elif is_complete(coder):
            path = coder
        else:
            if not processes.first:  # the first keeps it, the others find it
                processes.wait()
            path = adopt_autoencoder(coder, data, store=store, execution=execution)
            if processes.first:
                processes.wait()
        made = train_generator(
            data, load_autoencoder(path), config, store=store, execution=execution, seed=self.seed, processes=processes,
            out=self.out, progress=progress,
        )  # fmt: skip
        if processes.first:
            self._tell(data, path, made, teachers, execution)

    def _autoencoder(self) -> AutoencoderConfig | Path:
        """What is to be trained, or the folder of what is there."""
        if os.path.isdir(self.autoencoder):  # unlike Path.is_dir, False where a name is too long
            return Path(self.autoencoder)
        name, options = parse_spec(self.autoencoder)
        if name not in KINDS:
            raise ConfigError(
                f"--autoencoder takes {' or '.join(KINDS)} with options, or the folder of an autoencoder, and "
                f"{self.autoencoder!r} is neither: there is no such folder."
            )
        if "flip" in options or "kind" in options:
            raise ConfigError("--flip and the name before the colon say that of the autoencoder too. Leave it out.")
        return build_config(
            AutoencoderConfig, {"kind": name, "flip": self.flip, **options}, f"the autoencoder {name!r}"
        )

    def _check(
        self, data: Dataset, coder: AutoencoderConfig | Path, config: GeneratorConfig, processes: Processes,
        store: Store, execution: Execution,
    ) -> tuple[AutoencoderConfig | GivenAutoencoder, Path]:  # fmt: skip
        """The autoencoder, and where the generator stands or will stand; refuses what cannot be trained."""
        if isinstance(coder, AutoencoderConfig):
            processes.part(coder.batch)
            check_generator_options(data, coder, config)
            places = generator_places(
                data, coder, config, store=store, execution=execution, seed=self.seed, out=self.out
            )
            return coder, places[1]
        given = given_autoencoder(data, coder, config, execution)
        return given, place_on(
            data, given.fingerprint, config, store=store, execution=execution, seed=self.seed, out=self.out
        )

    def _plan(
        self, data: Dataset, coder: AutoencoderConfig | GivenAutoencoder, path: Path, config: GeneratorConfig,
        store: Store, execution: Execution,
    ) -> list[PlanLine]:  # fmt: skip
        """What is to be trained; a given autoencoder is there, and its bytes are kept with the denoiser's."""
        if isinstance(coder, AutoencoderConfig):
            options = GeneratorOptions(autoencoder=coder, denoiser=config, seed=self.seed)
            return plan_generator(options, data, store=store, execution=execution, out=self.out)[0]
        what = f"denoiser, {config.epochs} epochs"
        if is_complete(path):
            return [PlanLine(what, 1, 1, 0.0, 0)]
        seconds, size = forecast_denoiser(data, coder.latent_shape, config, execution)
        return [PlanLine(what, 0, 1, seconds, size + coder.size)]

    def _tell(
        self, data: Dataset, coder: Path, made: Path, teachers: Sequence[Teacher], execution: Execution
    ) -> None:  # fmt: skip
        own, trained = load_generator(made), read_artifact(made, verify=False).meta
        facts: dict[str, Any] = {"psnr": own.autoencoder.psnr}
        if teachers:
            autoencoder = own.to(execution.torch_device).autoencoder
            before, after = survives(autoencoder, teachers, data, execution)
            facts |= {"teacher_accuracy": before, "teacher_accuracy_reconstructed": after}
        if self.machine.json:
            print_json({**trained, "generator": str(made), "autoencoder": str(coder), "bytes": own.size, **facts})
            return
        row = [f"{facts['psnr']:.1f} dB", human_bytes(own.size), human_seconds(trained["train_seconds"])]
        columns = ["images come back at", "bytes", "denoiser's training"]
        if teachers:
            columns.append("teacher's accuracy on images, and on what comes back")
            row.append(f"{100 * before:.1f} and {100 * after:.1f} %")
        print_table(f"Generator of {data.info.name}", columns, [row], numbers=len(columns))
        print(f"generator: {made}")
