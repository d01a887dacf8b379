"""A grid of students, ours beside plain loops run cell after cell; all in this one run.

    python benchmarks/grid.py [--data cifar10] [--model convnet-3] [--ipc 10] [--epochs 30] [--seeds 3]

The grid is {kl, mse_ce, cosine, gift} x seeds under protocol `gift` with fewer epochs, one test at the end. Ours: the
losses of a seed trained as one stack on shared views, the teacher's logits computed once and kept, bfloat16 where the
hardware has it, channels last. The plain loop: what a careful person writes with torch alone (`student_step.py` tells
it in full): DataLoader with workers, transforms per sample, float32, a teacher forward at every step, one student after
another, the test split through a DataLoader too. Same number of steps, images and tests. It is measured with workers
started anew every epoch (DataLoader's default), with persistent ones, and with none; the ratio that counts is against
the fastest.

Then: where the physical limit is (the students' arithmetic over a large matrix product's rate in the same precision),
what the two kinds of stack cost, what compiling the models brings, and how the cost of a student's step grows with
arms, classes and pixels.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from softlabel.core import Dataset, DatasetInfo, DistilledSet, Split
from softlabel.data import load_dataset
from softlabel.distill import distill
from softlabel.evaluation import Job, find_protocol, train_students
from softlabel.labels import online_labels
from softlabel.losses import GIFT
from softlabel.models import build_model
from softlabel.store import Store
from softlabel.training import (
    Checks,
    Execution,
    Protocol,
    Teacher,
    environment,
    keep_freed_memory,
    resolve_execution,
    resolve_stack,
)
from student_step import PlainImages

LOSSES = ("kl", "mse_ce", "cosine", "gift")


def plain_grid(
    sets: Sequence[DistilledSet], data: Dataset, model: str, batch: int, epochs: int, *, workers: int,
    persistent: bool, device: str,
) -> tuple[float, float]:  # fmt: skip
    """Seconds of training and of testing, summed over all cells."""
    train_seconds = test_seconds = 0.0
    persistent = persistent and workers > 0
    for distilled in sets:
        split = Split(distilled.images, distilled.targets)
        for loss in LOSSES:
            began = time.perf_counter()
            student = _plain_training(split, data.info, loss, model, batch, epochs, workers, persistent, device)
            _wait(device)
            train_seconds += time.perf_counter() - began
            began = time.perf_counter()
            _plain_test(student, data, workers, device)
            test_seconds += time.perf_counter() - began
    return train_seconds, test_seconds


def _plain_training(
    split: Split, info: DatasetInfo, loss: str, spec: str, batch: int, epochs: int, workers: int, persistent: bool,
    device: str,
) -> nn.Module:  # fmt: skip
    student, teacher = _model(spec, info, 0).to(device), _model(spec, info, 1).to(device).eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    loader = DataLoader(
        PlainImages(split, info), batch, shuffle=True, num_workers=workers, persistent_workers=persistent
    )
    for _ in range(epochs):
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            with torch.no_grad():
                soft = teacher(images)
            value = plain_loss(loss, student(images), soft, targets)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return student


def plain_loss(name: str, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The four losses as a person writes them with torch."""
    if name == "kl":
        soft, own = F.softmax(teacher / 20, dim=1), F.log_softmax(student / 20, dim=1)
        return F.kl_div(own, soft, reduction="batchmean")
    if name == "mse_ce":
        return F.mse_loss(student, teacher) + 0.1 * F.cross_entropy(student, target)
    if name == "cosine":
        return 1 - F.cosine_similarity(student, teacher).mean()
    return GIFT()(student, teacher, target)


def _plain_test(student: nn.Module, data: Dataset, workers: int, device: str) -> float:
    student.eval()
    loader = DataLoader(_PlainTest(data.test, data.info), 500, num_workers=workers)
    with torch.no_grad():
        right = sum(
            int((student(images.to(device)).argmax(dim=1).cpu() == targets).sum()) for images, targets in loader
        )
    return right / len(data.test)


class _PlainTest(PlainImages):
    """The test images: converted and normalised one by one, not augmented."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255
        return (image - self.mean) / self.std, self.targets[index]


def our_grid(
    sets: Sequence[DistilledSet], data: Dataset, model: str, protocol: Protocol, execution: Execution, stack: str,
    losses: Sequence[str] = LOSSES,
) -> tuple[float, float]:  # fmt: skip
    """Seconds of training and of testing, summed over all cells; all of it, the store's writing included, in the first.

    One fresh store and one fresh teacher: nothing is found.
    """
    tested = 0.0
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        network = _model(model, data.info, 1).eval().requires_grad_(False)
        labels = online_labels([Teacher(network, data.info, model, "benchmark", None, 0, 0)], data.info)
        jobs = [Job(protocol=protocol.with_loss(loss), student=model, labels=labels) for loss in losses]
        for seed, distilled in enumerate(sets):
            for record in train_students(
                distilled, jobs, data=data, seed=seed, execution=execution, store=Store(Path(folder)), stack=stack
            ):
                if isinstance(record, Exception):
                    raise record
                tested += record["timing"]["test_seconds"]
        whole = time.perf_counter() - began
    return whole - tested, tested


def step_flops(model: str, info: DatasetInfo, batch: int) -> int:
    """Floating-point operations of a student's forward and backward pass on one batch (a product and a sum are two)."""
    student = _model(model, info, 0)
    views, target = torch.zeros(batch, *info.image_shape), torch.zeros(batch, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(student(views), target).backward()
    return int(counter.get_total_flops())


def matrix_rate(execution: Execution, size: int = 4096) -> float:
    """FLOP/s of a large matrix product in the precision of the students: the most that the machine does."""
    dtype = torch.bfloat16 if execution.precision == "bf16" else torch.float32
    one, two = (torch.randn(size, size, device=execution.torch_device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        one @ two
        _wait(execution.device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def growth(protocol: Protocol, model: str, execution: Execution, stack: str) -> None:
    """How a student's step grows: milliseconds per student and step on made-up images."""
    print("\nmilliseconds per student and step (made-up images, IPC 10, batch 50, no test between):")
    cases = [("arms", arms, 10, 32) for arms in (1, 2, 4, 8)]
    cases += [("classes", 4, classes, 32) for classes in (10, 100)] + [("pixels", 4, 10, side) for side in (32, 64)]
    short = replace(protocol, epochs=6, batch=50)
    for what, arms, classes, side in cases:
        data = _made_up(classes, side)
        sets = [distill("random", data, ipc=10, seed=0, execution=execution)]
        losses = [f"kl:temperature={temperature + 1}" for temperature in range(arms)]
        epochs = 500 // classes  # a hundred steps
        timed = replace(short, epochs=epochs)
        our_grid(sets, data, model, replace(short, epochs=1), execution, stack, losses)
        seconds, _ = our_grid(sets, data, model, timed, execution, stack, losses)
        steps = epochs * len(sets[0]) / 50
        print(f"  {what:8} {arms:3} arms {classes:4} classes {side:4} px {1e3 * seconds / steps / arms:9.2f} ms")


def _made_up(classes: int, side: int) -> Dataset:
    draws = torch.Generator().manual_seed(0)
    targets = torch.arange(classes).repeat_interleave(10)
    images = torch.randint(256, (len(targets), 3, side, side), generator=draws, dtype=torch.uint8)
    names = tuple(f"class {index}" for index in range(classes))
    info = DatasetInfo(
        name="made up", class_names=names, channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.3,) * 3,
        digest=f"made-up-{classes}-{side}",
    )  # fmt: skip
    return Dataset(info, Split(images, targets), Split(images[:100], targets[:100]))


def _model(spec: str, info: DatasetInfo, seed: int) -> nn.Module:
    return build_model(spec, image_shape=info.image_shape, classes=info.classes, seed=seed)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="convnet-3")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    execution = resolve_execution(given.device, given.precision)
    data = load_dataset(given.data)
    protocol = replace(find_protocol("gift", epochs=given.epochs), checks=Checks(count=1))
    sets = [distill("random", data, ipc=given.ipc, seed=seed, execution=execution) for seed in range(given.seeds)]
    batch = protocol.batch_size(len(sets[0]), data.info.classes)
    cells = len(LOSSES) * given.seeds
    steps = cells * given.epochs * -(-len(sets[0]) // batch)
    print(f"{given.data}, IPC {given.ipc}, {given.model}, batch {batch}: {len(LOSSES)} losses x {given.seeds} seeds, "
          f"{given.epochs} epochs, {steps} steps in all, one test per student")  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in environment(execution).items()))
    told: list[tuple[str, float, float]] = []

    def tell(name: str, seconds: tuple[float, float]) -> None:
        told.append((name, *seconds))
        print(f"{name:44} train {seconds[0]:7.1f} s  test {seconds[1]:6.1f} s  all {sum(seconds):7.1f} s", flush=True)

    # The plain loops first: ours changes how this process keeps its freed memory.
    shape, device = (sets, data, given.model, batch, given.epochs), execution.device
    tell("plain loop, workers started every epoch",
         plain_grid(*shape, persistent=False, workers=given.workers, device=device))  # fmt: skip
    tell("plain loop, persistent workers", plain_grid(*shape, persistent=True, workers=given.workers, device=device))
    tell("plain loop, no workers", plain_grid(*shape, persistent=False, workers=0, device=device))
    plain = list(told)
    keep_freed_memory()
    for stack in ("loop", "vmap"):  # warm up
        our_grid(sets[:1], data, given.model, replace(protocol, epochs=2), execution, stack)
    loop = our_grid(sets, data, given.model, protocol, execution, "loop")
    tell("softlabel, stack loop", loop)
    vmap = our_grid(sets, data, given.model, protocol, execution, "vmap")
    tell("softlabel, stack vmap", vmap)
    quick = replace(execution, compiled=True)
    began = time.perf_counter()
    our_grid(sets[:1], data, given.model, replace(protocol, epochs=2), quick, "loop")
    first = time.perf_counter() - began
    compiled = our_grid(sets, data, given.model, protocol, quick, "loop")
    tell("softlabel, stack loop, compiled", compiled)
    ours = vmap if resolve_stack("auto", execution) == "vmap" else loop
    fastest = min(sum(seconds) for _, *seconds in plain)
    print(f"\nratio against the fastest plain loop: {fastest / sum(ours):.2f}; "
          f"against DataLoader's defaults: {sum(plain[0][1:]) / sum(ours):.2f}")  # fmt: skip
    trained = ours[0]
    print(f"training alone, against the fastest: {min(line[1] for line in plain) / trained:.2f}; "
          f"against DataLoader's defaults: {plain[0][1] / trained:.2f}")  # fmt: skip
    against_plain, against_loop = fastest / sum(compiled), sum(loop) / sum(compiled)
    print(f"compiled: {against_plain:.2f} against the fastest plain loop, {against_loop:.2f} against the loop as it "
          f"is; two epochs that compile took {first:.1f} s before")  # fmt: skip
    flops, peak = steps * step_flops(given.model, data.info, batch), matrix_rate(execution)
    print(f"students' arithmetic: {flops / trained / 1e9:.0f} GFLOP/s, {100 * flops / trained / peak:.0f} % of the "
          f"{peak / 1e9:.0f} GFLOP/s of a large matrix product in {execution.precision}")  # fmt: skip
    growth(protocol, given.model, execution, resolve_stack("auto", execution))


if __name__ == "__main__":
    main()
