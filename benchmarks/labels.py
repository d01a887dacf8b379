"""The label store's speed beside what it must keep up with; all of it in this one run.

    python benchmarks/labels.py [--data cifar10] [--model convnet-3] [--ipc 10] [--epochs 20] [--protocol gift]

Labelling: images per second of `write_label_store`, files and checksums included, beside the teacher's pure inference
on views that lie ready, in the same batches and precision. Reading: labels per second of a stored training, views and
all, beside what a student consumes. Then, per codec: the cost of encoding and decoding a million labels, and its bytes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from softlabel.core import Split, stream_seed
from softlabel.data import load_dataset
from softlabel.distill import distill
from softlabel.evaluation import find_protocol, student_views
from softlabel.labels import Codec, FittedCodec, load_label_store, online_labels, write_label_store
from softlabel.models import build_model
from softlabel.training import (
    Batches,
    Teacher,
    environment,
    fit,
    keep_freed_memory,
    resolve_execution,
)

SPECS = ("fp32", "fp16", "int8", "int4", "topk:k=2", "topk:k=2,fill=smooth", "lowrank:rank=4", "distances",
         "vq:parts=2")  # fmt: skip
BATCH = 1000


def rate(work: Callable[[], int], least: float = 2.0) -> float:
    """Items per second of `work`, which returns how many it did; once to warm up, then for a while."""
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < least:
        done += work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return done / (time.perf_counter() - began)


def codec_costs(fitted: FittedCodec, logits: Tensor) -> tuple[float, float]:
    """Seconds per million labels, there and back."""
    target = logits.argmax(dim=1)
    rows = fitted.encode(logits, target=target)
    parts = [slice(start, start + BATCH) for start in range(0, len(logits), BATCH)]

    def encode() -> int:
        for part in parts:
            fitted.encode(logits[part], target=target[part])
        return len(logits)

    def decode() -> int:
        for part in parts:
            fitted.decode({name: tensor[part] for name, tensor in rows.items()}, target=target[part])
        return len(logits)

    return 1e6 / rate(encode, 0.5), 1e6 / rate(decode, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="convnet-3")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--protocol", default="gift")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    keep_freed_memory()
    execution = resolve_execution(given.device, given.precision)
    data = load_dataset(given.data)
    info = data.info
    protocol = find_protocol(given.protocol, epochs=given.epochs)
    distilled = distill("random", data, ipc=given.ipc, seed=0, execution=execution)
    model = build_model(given.model, image_shape=info.image_shape, classes=info.classes, seed=1)
    teacher = Teacher(model.eval().requires_grad_(False), info, given.model, "benchmark", None, 0, 0)
    source, plan = online_labels([teacher], info).to(execution.torch_device), student_views(distilled, protocol, 0)
    split = Split(distilled.images, distilled.targets)
    views = given.epochs * len(distilled)
    print(f"{given.data}, IPC {given.ipc}, {given.model}, protocol {given.protocol}, batch {plan.batch}, {views} views")
    print(", ".join(f"{key} {value}" for key, value in environment(execution).items()))

    ready = list(Batches(split, info, execution.torch_device).epoch(plan, 0))

    def infer() -> int:
        with execution.autocast(), execution.deterministic():
            for batch in ready:
                source.logits(batch.views, batch.index)
        return len(distilled)

    with tempfile.TemporaryDirectory() as folder:
        made = iter(range(1000))

        def label() -> int:
            path = Path(folder) / str(next(made))
            write_label_store(path, source, distilled, protocol=protocol, execution=execution)
            return views

        pure, whole = rate(infer), rate(label)
        print(f"teacher's inference alone   {pure:10.0f} views/s")
        print(f"labelling, views and files  {whole:10.0f} views/s   ratio {whole / pure:.2f}")
        opened = load_label_store(Path(folder) / "0", distilled)

        def read() -> int:
            for epoch in range(given.epochs):
                for drawn in opened.views.epoch(epoch):
                    opened.labels.logits(torch.empty(0), drawn.index, drawn.rows)
            return views

        def train() -> int:
            student = build_model(given.model, image_shape=info.image_shape, classes=info.classes, seed=0)
            fit(
                student, split, protocol=protocol, info=info, seed=stream_seed(0, "student"), execution=execution,
                labels=opened.labels, factor=distilled.factor,
            )  # fmt: skip
            return views

        reading, training = rate(read), rate(train)
        print(f"student, on stored labels   {training:10.0f} views/s")
        print(f"reading labels and views    {reading:10.0f} views/s   ratio {reading / training:.1f}")

    logits = torch.randn(20 * BATCH, info.classes, generator=torch.Generator().manual_seed(0)) * 3
    print(f"\nseconds per million labels of {info.classes} classes, in batches of {BATCH}, and bytes per label:")
    for spec in SPECS:
        codec = Codec.parse(spec)
        there, back = codec_costs(codec.fit(logits), logits)
        print(f"  {codec.spec:52} encode {there:7.2f}  decode {back:7.2f}  {codec.row_bytes(info.classes):5d} B")


if __name__ == "__main__":
    main()
