"""softlabel generate: as many images as a time allows."""

from dataclasses import dataclass, field
from pathlib import Path

from softlabel.cli._options import Machine, Session
from softlabel.cli._output import print_json, print_table
from softlabel.core import ConfigError, format_spec, human_bytes, plain
from softlabel.evaluation import TimedSet, keep_timed
from softlabel.generate import Sampling, check_sampling, image_seconds, load_generator
from softlabel.store import load_distilled, read_artifact


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Make a set of as many images as a time allows (of a number per class: distill --method latent-diffusion).

    Example: softlabel generate --generator GENERATOR --seconds 600
    """

    generator: Path
    """Folder of a generator (softlabel generator)."""
    seconds: float = 600.0
    """Time for the sampling: the challenge's ten minutes by default."""
    sampler: str = Sampling.sampler
    """See: softlabel ls samplers"""
    steps: int = Sampling.steps
    """Looks at the denoiser per image: fewer make more images."""
    guidance: float = Sampling.guidance
    """1 takes the class as it is, more exaggerates it, 0 leaves it out."""
    batch: int = Sampling.batch
    """Images made together."""
    storage: str = "png"
    """png or webp (lossless), or jpeg-Q with quality Q from 1 to 100."""
    seed: int = 0
    """Seed of the noise."""
    out: Path | None = None
    """Folder to keep the set in. Default: its place in the store."""
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        sampling = Sampling(sampler=self.sampler, steps=self.steps, guidance=self.guidance, batch=self.batch)
        spec = format_spec("latent-diffusion", {"generator": str(self.generator), **plain(sampling)})
        wanted = TimedSet(name="generated", method=spec, seconds=self.seconds, storage=self.storage)
        made = load_generator(self.generator)
        check_sampling(made.config.schedule, self.sampler, self.steps, self.guidance)
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        if self.machine.dry_run:
            each = image_seconds(made, sampling, execution)
            batches = int(self.seconds / (each * sampling.batch))
            images = batches * sampling.batch // made.info.classes * made.info.classes
            if not images:
                raise ConfigError(
                    f"A budget of {self.seconds:g} s is too short: a batch of {sampling.batch} images takes about "
                    f"{each * sampling.batch:.2g} s, and every class needs one. Allow more time, or take fewer steps."
                )
            facts = {"seconds": self.seconds, "classes": made.info.classes, "batch": self.batch, "images": images}
            print_json(facts) if self.machine.json else print(
                f"would make about {images:,} images of {made.info.name} in {self.seconds:g} seconds"
            )
            return
        path = keep_timed(wanted, None, self.seed, store, execution, out=self.out, progress=session.progress)
        found = load_distilled(path)
        if self.machine.json:
            print_json({"distilled": str(path), **read_artifact(path, "distilled", verify=False).meta})
            return
        rate = f"{len(found) / self.seconds:.1f}"
        row = (str(found.ipc), f"{len(found):,}", rate, human_bytes(found.image_bytes))
        print_table(
            f"Images of {made.info.name}", ("IPC", "images", "per second allowed", "bytes of images"), [row], numbers=4
        )
        print(f"distilled set: {path}")
