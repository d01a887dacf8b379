"""One student step, split into its parts, beside a plain loop; both in this one run.

    python benchmarks/student_step.py [--data cifar10] [--model convnet-3] [--ipc 10] [--batch 50] [--epochs 30]

Ours: images on the device, batched views, the precision that `auto` picks, channels last, the teacher in inference
mode. The plain loop: what a careful person writes with torch alone: a DataLoader with workers, transforms per sample
in them, float32, the teacher under no_grad at every step. Same images, models, batch, loss (GIFT) and augmentation
(flip, colour, one of shift / scale / rotate, cutout). The plain loop is measured with workers that are started anew
every epoch (DataLoader's default) and with persistent ones; the ratio that counts is against the faster of the two.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from softlabel.core import DatasetInfo, Split, stream
from softlabel.data import load_dataset
from softlabel.evaluation import find_protocol
from softlabel.labels import online_labels
from softlabel.losses import GIFT, Loss
from softlabel.models import build_model
from softlabel.training import (
    Execution,
    Normaliser,
    Teacher,
    environment,
    fit,
    keep_freed_memory,
    resolve_execution,
)
from softlabel.views import apply, sample


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images with transforms per sample, as a torchvision pipeline would apply them."""

    def __init__(self, split: Split, info: DatasetInfo) -> None:
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.targets = split.targets.tolist()
        self.mean, self.std = torch.tensor(info.mean).view(-1, 1, 1), torch.tensor(info.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255
        return plain_view((image - self.mean) / self.std), self.targets[index]


def plain_view(image: Tensor) -> Tensor:
    """GIFT's augmentation of one image [C, H, W], written the obvious way."""
    draw = torch.rand(8).tolist()
    if draw[0] < 0.5:
        image = image.flip(-1)
    image = image + (draw[1] - 0.5)
    grey = image.mean(dim=0, keepdim=True)
    image = (image - grey) * 2 * draw[2] + grey
    image = (image - image.mean()) * (draw[3] + 0.5) + image.mean()
    height, width = image.shape[-2:]
    kind = int(torch.randint(3, ()))
    if kind == 0:
        pad = int(height * 0.125 + 0.5)
        top, left = int(draw[4] * (2 * pad + 1)), int(draw[5] * (2 * pad + 1))
        image = F.pad(image, (pad, pad, pad, pad))[:, top : top + height, left : left + width]
    else:
        angle = (draw[4] - 0.5) * 2 * math.radians(15)
        low, high = 1 / 1.2, 1.2
        theta = (
            [[low + draw[4] * (high - low), 0, 0], [0, low + draw[5] * (high - low), 0]]
            if kind == 1
            else [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
        )
        grid = F.affine_grid(torch.tensor([theta]), [1, *image.shape], align_corners=False)
        image = F.grid_sample(image[None], grid, align_corners=False)[0]
    top, left = int(draw[6] * height) - height // 4, int(draw[7] * width) - width // 4
    mask = torch.ones(height, width)
    mask[max(top, 0) : top + height // 2, max(left, 0) : left + width // 2] = 0
    return image * mask


def plain_seconds(
    split: Split, info: DatasetInfo, model: str, batch: int, epochs: int, workers: int, persistent: bool, device: str
) -> float:
    """Median seconds of one step of the plain loop, an epoch's share of starting workers included."""
    student = _model(model, info, 0).to(device)
    teacher = _model(model, info, 1).to(device).eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-4)
    loss_function = GIFT()
    loader = DataLoader(
        PlainImages(split, info), batch, shuffle=True, num_workers=workers, persistent_workers=persistent
    )
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            with torch.no_grad():
                soft = teacher(images)
            loss = loss_function(student(images), soft, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait(device)
        seconds.append((time.perf_counter() - began) / len(loader))
    return statistics.median(seconds[1:])


def our_seconds(
    split: Split, info: DatasetInfo, model: str, batch: int, epochs: int, execution: Execution
) -> tuple[float, dict[str, float]]:
    """Mean seconds of one step of `softlabel.training.fit`, and the seconds of its parts measured apart."""
    device = execution.torch_device
    teacher = _teacher(model, info).to(device)
    protocol = replace(find_protocol("gift", epochs=epochs), batch=batch)
    source = online_labels([teacher], info)
    student = _model(model, info, 0)
    fit(student, split, protocol=protocol, info=info, seed=0, execution=execution, labels=source)
    history = fit(student, split, protocol=protocol, info=info, seed=1, execution=execution, labels=source)
    return history.train_seconds / history.steps, _parts(student, teacher, split, info, batch, execution)


def _parts(
    student: nn.Module, teacher: Teacher, split: Split, info: DatasetInfo, batch: int, execution: Execution
) -> dict[str, float]:
    device = execution.torch_device
    policy = find_protocol("gift").policy(1)
    normalise = Normaliser(info, device)
    function = Loss("gift").function()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    pixels, target = split.images[:batch], split.targets[:batch].to(device)
    draws = stream(0, "benchmark")
    student.train()

    def view() -> Tensor:
        params = sample(policy, len(pixels), info.height, info.width, draws).to(device)
        return apply(normalise(pixels), params).contiguous(memory_format=torch.channels_last)

    views = view()

    def label() -> Tensor:
        with execution.autocast():
            return teacher.logits(views)

    soft = label()

    def learn() -> None:
        with execution.autocast():
            logits = student(views)
        function(student=logits.float(), teacher=soft, target=target).mean().backward()

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    learn()
    return {
        "view": _median(view, device),
        "teacher": _median(label, device),
        "student forward + backward": _median(learn, device),
        "optimizer": _median(step, device),
    }


def _median(work: Callable[[], object], device: torch.device, turns: int = 30) -> float:
    seconds = []
    for _ in range(turns + 3):
        began = time.perf_counter()
        work()
        _wait(device.type)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[3:])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _model(spec: str, info: DatasetInfo, seed: int) -> nn.Module:
    return build_model(spec, image_shape=info.image_shape, classes=info.classes, seed=seed)


def _teacher(spec: str, info: DatasetInfo) -> Teacher:
    return Teacher(_model(spec, info, 1).eval().requires_grad_(False), info, spec, "benchmark", None, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="convnet-3")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    data = load_dataset(options.data)
    index = torch.cat([(data.train.targets == c).nonzero().flatten()[: options.ipc] for c in range(data.info.classes)])
    split, info = data.train.subset(index), data.info
    execution = resolve_execution(options.device)
    print(f"{options.data}, IPC {options.ipc}, {options.model}, batch {options.batch}")
    print(", ".join(f"{key} {value}" for key, value in environment(execution).items()))
    sizes = (split, info, options.model, options.batch, options.epochs)
    plain = [plain_seconds(*sizes, options.workers, persistent, execution.device) for persistent in (False, True)]
    kept = keep_freed_memory()
    helped = plain_seconds(*sizes, options.workers, True, execution.device)
    ours, parts = our_seconds(*sizes, execution)
    single, _ = our_seconds(*sizes, Execution(execution.device, "fp32"))
    print("softlabel, parts measured apart:")
    for name, seconds in parts.items():
        print(f"  {name:44s} {1e3 * seconds:8.2f} ms")
    _row("softlabel, one step", ours, ours)
    _row("softlabel in fp32", single, ours)
    _row("plain loop, workers started every epoch", plain[0], ours)
    _row("plain loop, persistent workers", plain[1], ours)
    _row(f"the same with freed memory kept ({kept})", helped, ours)
    print(f"ratio against the faster plain loop: {min(plain) / ours:.2f}")


def _row(name: str, seconds: float, ours: float) -> None:
    print(f"{name:46s} {1e3 * seconds:8.2f} ms  {seconds / ours:6.2f} x ours")


if __name__ == "__main__":
    main()
