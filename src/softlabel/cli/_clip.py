"""softlabel clip: a small CLIP of one's own, as transformers keeps one."""

from dataclasses import dataclass, field
from pathlib import Path

from softlabel.cli._options import Data, Machine, Session
from softlabel.cli._output import print_json, print_table
from softlabel.core import human_bytes
from softlabel.labels import SmallClipConfig, check_small_clip, train_small_clip
from softlabel.store import read_artifact


@dataclass(frozen=True, kw_only=True)
class MakeClip:
    """Train a small CLIP on a data set's images and class names, for `labeler --backbone clip:FOLDER`.

    For machines that reach no public CLIP. Take other data than that which the labeler is for.

    Example: softlabel clip --data tiny-imagenet-200 --image-size 32x32 --epochs 20 --out clip-tiny
    """

    out: Path
    """Folder to keep it in."""
    width: int = SmallClipConfig.width
    """Of the transformers."""
    depth: int = SmallClipConfig.depth
    """Layers of the vision transformer; the text transformer has half."""
    heads: int = SmallClipConfig.heads
    """Of attention."""
    patch: int = SmallClipConfig.patch
    """Pixels per side of a patch."""
    embedding: int = SmallClipConfig.embedding
    """Size of the space that images and texts share."""
    epochs: int = SmallClipConfig.epochs
    """Over the data."""
    batch: int = SmallClipConfig.batch
    """Batch size."""
    lr: float = SmallClipConfig.lr
    """Peak learning rate."""
    seed: int = 0
    """Seed of initialisation, order and views."""
    data: Data = field(default_factory=Data)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        names = ("width", "depth", "heads", "patch", "embedding", "epochs", "batch", "lr")
        config = SmallClipConfig(**{name: getattr(self, name) for name in names})
        self.machine.open_store(self.out)  # refuses an --out that it cannot write, or is told to make again
        execution = self.machine.execution()
        data = self.data.options().load(session.progress)
        check_small_clip(data.info, config)
        if self.machine.dry_run:
            steps = config.epochs * -(-len(data.train) // config.batch)
            facts = {"clip": str(self.out), "steps": steps}
            print_json(facts) if self.machine.json else print(f"would train a CLIP for {steps} steps, to {self.out}")
            return
        path = train_small_clip(
            data, config, out=self.out, execution=execution, seed=self.seed, progress=session.progress
        )
        artifact = read_artifact(path, "clip", verify=False)
        size = artifact.bytes_of("model.safetensors")
        if self.machine.json:
            print_json({"clip": str(path), "bytes": size, **artifact.meta})
            return
        row = (f"{100 * artifact.meta['test_accuracy']:.1f} %", human_bytes(size))
        print_table(f"CLIP on {data.info.name}", ("picks the class's prompt", "bytes"), [row], numbers=2)
        print(f"backbone: clip:{path}")
