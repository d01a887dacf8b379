"""How many images per second a generator makes, over steps and batch; all of it in this one run.

    python benchmarks/generate.py [--size 32] [--channels 3] [--denoiser dit:width=128,depth=4,heads=4] [--factor 4]

The networks are fresh: weights change what an image shows, not what it costs. Beside the images of a whole second stand
the same without guidance (which looks twice per step), and what of the time the decoder takes; then training: images
per second of a step of the denoiser and of the autoencoder.
"""

import argparse
import time
from dataclasses import replace

import torch

from softlabel.core import Dataset, DatasetInfo, Split
from softlabel.generate import (
    Autoencoder,
    AutoencoderConfig,
    Generator,
    GeneratorConfig,
    Sampling,
    build_autoencoder,
    build_denoiser,
    forecast_generator,
)
from softlabel.training import Execution, environment, keep_freed_memory, resolve_execution

STEPS, BATCHES = (4, 8, 10, 20, 50), (32, 128, 512)
CLASSES = 10


def rate(generator: Generator, sampling: Sampling, execution: Execution, least: float = 3.0) -> float:
    """Images per second: one batch to warm up, then batches for a while."""
    classes = torch.arange(sampling.batch) % CLASSES

    def make() -> None:
        generator.images(classes, classes, sampling, execution, 0)
        if execution.torch_device.type == "cuda":
            torch.cuda.synchronize()

    make()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < least:
        make()
        done += sampling.batch
    return done / (time.perf_counter() - began)


def dataset(size: int, channels: int, images: int) -> Dataset:
    """Noise: what pixels show costs nothing."""
    pixels = torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8)
    split = Split(pixels, torch.arange(images) % CLASSES)
    names = tuple(f"class {number}" for number in range(CLASSES))
    info = DatasetInfo(
        name="noise", class_names=names, channels=channels, height=size, width=size, mean=(0.5,) * channels,
        std=(0.25,) * channels, origin="made for a benchmark", digest="noise",
    )  # fmt: skip
    return Dataset(info=info, train=split, test=split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--denoiser", default="dit:width=128,depth=4,heads=4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    keep_freed_memory()
    execution = resolve_execution(given.device, given.precision)
    data = dataset(given.size, given.channels, 1024)
    coder = AutoencoderConfig(factor=given.factor, width=given.width)
    network = build_autoencoder(coder, data.info, 0).eval().requires_grad_(False)
    shape = (coder.channels, given.size // given.factor, given.size // given.factor)
    made = Autoencoder(network, data.info, torch.zeros(shape[0]), torch.ones(shape[0]))
    denoiser = build_denoiser(given.denoiser, shape, CLASSES, 0).eval().requires_grad_(False)
    config = GeneratorConfig(denoiser=given.denoiser)
    generator = Generator(made, denoiser, config, data.info, "benchmark", 0).to(execution.torch_device)
    weights = [sum(tensor.numel() for tensor in one.state_dict().values()) / 1e6 for one in (denoiser, network)]
    print(f"{given.size} px, {given.channels} channels, {given.denoiser} ({weights[0]:.1f} M weights), autoencoder of "
          f"factor {given.factor} and width {given.width} ({weights[1]:.1f} M)")  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in environment(execution).items()))
    print("\nimages per second, DPM-Solver++, guidance 2:")
    print("steps " + "".join(f"   batch {batch:4d}" for batch in BATCHES) + "   without guidance, times as many")
    for steps in STEPS:
        found = [rate(generator, Sampling(steps=steps, batch=batch), execution) for batch in BATCHES]
        alone = rate(generator, Sampling(steps=steps, batch=BATCHES[-1], guidance=1.0), execution)
        print(f"{steps:5d} " + "".join(f"{one:13.1f}" for one in found) + f"{alone / found[-1]:22.2f}")
    cost = forecast_generator(data, replace(coder, epochs=1), replace(config, epochs=1), execution)
    ten = Sampling(steps=10)
    print(
        f"\nof an image in 10 steps the decoder takes {100 * cost.decode_seconds / cost.sampling_seconds(ten, 1):.0f} %"
    )
    print(f"training: denoiser {1024 / cost.denoiser_seconds:.0f} images/s, autoencoder "
          f"{1024 / cost.coder_seconds:.0f} images/s, in batches of {config.batch}")  # fmt: skip


if __name__ == "__main__":
    main()
