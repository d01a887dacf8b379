"""softlabel generate: as many images as a time allows."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from softlabel.cli._options import Machine, Session
from softlabel.cli._output import print_json, print_table
from softlabel.core import ConfigError, DistilledSet, fingerprint, human_bytes, plain
from softlabel.generate import Sampling, check_sampling, generate_within, load_generator
from softlabel.store import is_complete, read_artifact, save_distilled


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
        made = load_generator(self.generator)
        check_sampling(made.config.schedule, self.sampler, self.steps, self.guidance)
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        if self.out is not None and is_complete(self.out):
            raise ConfigError(
                f"There is a set at {self.out} already, and nothing is overwritten. Choose another --out."
            )
        if self.machine.dry_run:
            facts = {"seconds": self.seconds, "classes": made.info.classes, "batch": self.batch}
            print_json(facts) if self.machine.json else print(f"would make images for {self.seconds:g} seconds")
            return
        images = generate_within(
            made.to(execution.torch_device), sampling, self.seconds, seed=self.seed, execution=execution,
            progress=session.progress,
        )  # fmt: skip
        ipc = len(images) // made.info.classes
        key = fingerprint(
            "generated", made.fingerprint, plain(sampling), self.seed, ipc, self.storage, execution.identity
        )
        distilled = DistilledSet(
            images=images,
            targets=torch.arange(made.info.classes).repeat_interleave(ipc),
            info=made.info,
            method="latent-diffusion",
            ipc=ipc,
            seed=self.seed,
            provenance={
                "generator": made.fingerprint,
                "sampling": plain(sampling),
                "seconds": self.seconds,
                "key": key,
            },
        )
        path = self.out or store.distilled(f"{made.info.name}-generated-ipc{ipc}-s{self.seed}", key)
        kept = distilled if is_complete(path) else save_distilled(distilled, path, self.storage)
        if self.machine.json:
            print_json({"distilled": str(path), **read_artifact(path, "distilled", verify=False).meta})
            return
        rate = f"{len(images) / self.seconds:.1f}"
        row = (str(ipc), f"{len(images):,}", rate, human_bytes(kept.image_bytes))
        print_table(
            f"Images of {made.info.name}", ("IPC", "images", "per second allowed", "bytes of images"), [row], numbers=4
        )
        print(f"distilled set: {path}")
