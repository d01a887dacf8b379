"""Autoencoders, denoisers and images made with them."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import linalg
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    Dataset,
    Silent,
    Split,
    StoreError,
    TeacherMismatchError,
    UnknownNameError,
    stream,
)
from softlabel.generate import (
    Autoencoder,
    AutoencoderConfig,
    Choice,
    Course,
    Draws,
    Generator,
    GeneratorConfig,
    Processes,
    Sampling,
    adopt_autoencoder,
    agreement,
    best_of,
    build_denoiser,
    choose_images,
    frechet_distance,
    generate_within,
    load_autoencoder,
    load_generator,
    min_max,
    nearest_real,
    prototypes,
    psnr,
    train_autoencoder,
    train_generator,
    train_steps,
)
from softlabel.store import FileCheckpoint, Store, read_artifact
from softlabel.training import Execution, Optimizer

pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers, under numpy 2
CODER = AutoencoderConfig(factor=4, width=8, channels=3, epochs=12, batch=16, lr=5e-3, flip=False)
DENOISER = GeneratorConfig(
    denoiser="dit:width=48,depth=2,heads=3", epochs=60, batch=32, lr=3e-3, average=0.98, flip=False
)
FAST = Sampling(steps=6, guidance=2.0)
CPU = Execution("cpu", "fp32")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("generate"))


@pytest.fixture(scope="module")
def coder(home: Store, tiny_data: Dataset) -> Autoencoder:
    return load_autoencoder(train_autoencoder(tiny_data, CODER, store=home, execution=CPU))


@pytest.fixture(scope="module")
def made(home: Store, tiny_data: Dataset, coder: Autoencoder) -> Generator:
    return load_generator(train_generator(tiny_data, coder, DENOISER, store=home, execution=CPU))


def place_of(images: Tensor) -> Tensor:
    """Where the bright patch of the tests' images is: the class they show."""
    half = images.shape[-1] // 2
    corners = [images[:, :, (c // 2) * half :, (c % 2) * half :][:, :, :half, :half] for c in range(4)]
    return torch.stack([corner.float().mean(dim=(1, 2, 3)) for corner in corners], dim=1).argmax(dim=1)


# --- the loop


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


def line_loss(network: nn.Module, rows: Tensor, draws: Draws) -> Tensor:
    return (network(X[rows]) - X[rows].sum(dim=1) - 0.1 * draws.normal(1)[:, 0]).square().mean()


COURSE = Course(epochs=4, batch=8, optimizer=Optimizer(name="adamw", lr=0.1, weight_decay=0.0), average=0.9)


def test_a_training_against_plain_torch() -> None:
    network = Line()
    found = train_steps(network, line_loss, 20, COURSE, seed=3, execution=CPU)
    weight, average = torch.zeros(3, requires_grad=True), torch.zeros(3)
    adam = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    for step in range(8):  # two whole batches of 8 in 20
        epoch, position = divmod(step, 2)
        order = torch.randperm(20, generator=stream(3, "order", epoch))
        rows = order[8 * position : 8 * position + 8]
        noise = torch.randn(8, 1, generator=stream(3, "noise", step))[:, 0]
        adam.zero_grad()
        (X[rows] @ weight - X[rows].sum(dim=1) - 0.1 * noise).square().mean().backward()
        for group in adam.param_groups:  # up over 5 % of 8 steps, down over the last 30 %
            group["lr"] = 0.1 * min(1.0, (step + 1) / 0.4, (8 - step) / 2.4)
        adam.step()
        past = 0.0 if step == 0 else min(0.9, (1 + step) / (10 + step))
        average = past * average + (1 - past) * weight.detach()
    torch.testing.assert_close(network.weight, weight)
    best: Any = found.network
    torch.testing.assert_close(best.weight, average)
    assert len(found.losses) == 4


def test_an_interrupted_training_equals_the_unbroken_one(tmp_path: Path) -> None:
    whole = train_steps(Line(), line_loss, 20, COURSE, seed=3, execution=CPU)
    checkpoint, count = FileCheckpoint(tmp_path / "resume.safetensors"), 0

    def breaking(network: nn.Module, rows: Tensor, draws: Draws) -> Tensor:
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return line_loss(network, rows, draws)

    with pytest.raises(KeyboardInterrupt):
        train_steps(Line(), breaking, 20, COURSE, seed=3, execution=CPU, checkpoint=checkpoint, save_seconds=0)
    again = train_steps(Line(), line_loss, 20, COURSE, seed=3, execution=CPU, checkpoint=checkpoint)
    assert again.losses == whole.losses
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])


def test_processes_share_a_batch_as_one_would_have_it() -> None:
    """The mean of the parts' gradients is the whole batch's: what several processes add up to."""
    draws = [Draws(stream(0, "x"), 8, Processes(rank, count).part(8), torch.device("cpu"))
             for rank, count in ((0, 2), (1, 2), (0, 1))]  # fmt: skip
    normal = [one.normal(2) for one in draws]
    uniform = [one.uniform() for one in draws]
    assert torch.equal(torch.cat(normal[:2]), normal[2])
    assert torch.equal(torch.cat(uniform[:2]), uniform[2])
    with pytest.raises(ConfigError, match="batch of 9 cannot be shared evenly by 2 processes"):
        Processes(0, 2).part(9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epochs": 0}, "epochs and a batch of 1 or more"), ({"average": 1.0}, "average's weight of the past")],
)
def test_courses_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Course(**changes)
    with pytest.raises(ConfigError, match="batch of 8 is larger than the 5 images"):
        train_steps(Line(), line_loss, 5, COURSE, seed=0, execution=CPU)


# --- the autoencoder


class Attending(nn.Module):
    """One attention over tokens, and which of torch's kernels it was given to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.fused: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.fused.append(torch.backends.cuda.flash_sdp_enabled())
        return torch.nn.functional.scaled_dot_product_attention(x * self.weight, x, x)


@pytest.mark.parametrize(("tokens", "fused"), [(0, True), (64, False), (4096, True)])
def test_attention_over_few_tokens_is_plain_products(tokens: int, fused: bool) -> None:
    images = torch.randn(20, 2, 16, 8, generator=torch.Generator().manual_seed(0))

    def loss(network: nn.Module, rows: Tensor, draws: Draws) -> Tensor:
        return network(images[rows]).square().mean()

    network, usual = Attending(), Attending()
    found = train_steps(network, loss, 20, COURSE, seed=3, execution=CPU, tokens=tokens)
    expected = train_steps(usual, loss, 20, COURSE, seed=3, execution=CPU)
    assert set(network.fused) == {fused}
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_images_come_back(coder: Autoencoder, tiny_data: Dataset) -> None:
    images = tiny_data.test.images
    latents = coder.encode(images, CPU)
    assert latents.shape == (len(images), *coder.latent_shape) == (80, 3, 4, 4)
    again = coder.decode(latents, CPU)
    assert again.dtype == torch.uint8
    assert psnr(images, again) == pytest.approx(coder.psnr, abs=1e-6)
    flat = images.float().mean(dim=(0, 2, 3), keepdim=True).expand_as(images).round().to(torch.uint8)
    assert coder.psnr > psnr(images, flat) + 1
    assert bool((place_of(again) == tiny_data.test.targets).float().mean() > 0.95)


def test_latents_have_mean_0_and_deviation_1(coder: Autoencoder, tiny_data: Dataset) -> None:
    latents = coder.encode(tiny_data.train.images, CPU)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_psnr_against_its_formula() -> None:
    one = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    other = one.clone()
    other[0, 0, 0, 0] = 10  # mean squared error 25
    assert psnr(one, other) == pytest.approx(10 * torch.log10(torch.tensor(255**2 / 25)).item())
    assert psnr(one, one) == float("inf")


def test_an_autoencoder_is_found_again(home: Store, tiny_data: Dataset, coder: Autoencoder, tmp_path: Path) -> None:
    again = load_autoencoder(train_autoencoder(tiny_data, CODER, store=home, execution=CPU))
    assert again.fingerprint == coder.fingerprint
    out = tmp_path / "coder"
    quick = replace(CODER, epochs=1)
    train_autoencoder(tiny_data, quick, store=home, execution=CPU, out=out)
    with pytest.raises(StoreError, match="already holds another autoencoder"):
        train_autoencoder(tiny_data, replace(quick, lr=1e-4), store=home, execution=CPU, out=out)


def test_codes_of_a_book(home: Store, tiny_data: Dataset) -> None:
    config = replace(CODER, kind="vq", codes=32)
    made = load_autoencoder(train_autoencoder(tiny_data, config, store=home, execution=CPU))
    assert type(made.network).__name__ == "VQModel"
    again = made.decode(made.encode(tiny_data.test.images, CPU), CPU)
    assert bool((place_of(again) == tiny_data.test.targets).float().mean() > 0.9)


def test_a_pretrained_autoencoder_is_taken(home: Store, tiny_data: Dataset, coder: Autoencoder, tmp_path: Path) -> None:
    network: Any = coder.network
    network.save_pretrained(tmp_path / "public")
    taken = load_autoencoder(adopt_autoencoder(tmp_path / "public", tiny_data, store=home, execution=CPU))
    images = tiny_data.test.images[:8]
    torch.testing.assert_close(taken.encode(images, CPU), coder.encode(images, CPU))
    with pytest.raises(ConfigError, match=r"There is no autoencoder at .*nothing"):
        adopt_autoencoder(tmp_path / "nothing", tiny_data, store=home, execution=CPU)


def test_an_autoencoder_for_other_channels(
    home: Store, tiny_data: Dataset, grey_data: Dataset, coder: Autoencoder, tmp_path: Path
) -> None:
    network: Any = coder.network
    network.save_pretrained(tmp_path / "public")
    with pytest.raises(ConfigError, match=r"takes images of 3 channels.*--channels 3"):
        adopt_autoencoder(tmp_path / "public", grey_data, store=home, execution=CPU)


def test_another_precision_is_another_autoencoder(
    home: Store, tiny_data: Dataset, coder: Autoencoder, tmp_path: Path
) -> None:
    network: Any = coder.network
    network.save_pretrained(tmp_path / "public")
    paths = {
        adopt_autoencoder(tmp_path / "public", tiny_data, store=home, execution=Execution("cpu", precision))
        for precision in ("fp32", "bf16")
    }
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "gan"}, UnknownNameError, "There is no autoencoder named 'gan'"),
        ({"factor": 3}, ConfigError, "power of two"),
        ({"width": 12}, ConfigError, "multiple of 8"),
        ({"channels": 0}, ConfigError, "channels of 1 or more"),
    ],
)
def test_autoencoders_that_make_no_sense(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AutoencoderConfig(**changes)


def test_images_that_cannot_be_halved(home: Store, grey_data: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"have 8x12 px. Convert them, e.g. with --image-size 8x16"):
        train_autoencoder(grey_data, replace(CODER, factor=8), store=home, execution=CPU)


def test_weights_of_another_architecture(home: Store, tiny_data: Dataset, tmp_path: Path) -> None:
    path = train_autoencoder(tiny_data, replace(CODER, epochs=1), store=home, execution=CPU, out=tmp_path / "a")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["meta"]["network"]["block_out_channels"] = [16, 32, 32]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="another architecture"):
        load_autoencoder(path)


# --- the generator


def test_the_condition_decides_what_is_shown(made: Generator) -> None:
    classes, numbers = torch.arange(4).repeat_interleave(10), torch.arange(10).repeat(4)
    images = made.images(classes, numbers, FAST, CPU, seed=0)
    assert float((place_of(images) == classes).float().mean()) > 0.9
    noise = made.noise(classes.tolist(), numbers.tolist(), 0)
    swapped = made.autoencoder.decode(made.latents(3 - classes, noise, FAST, CPU), CPU)  # the same noise
    assert float((place_of(swapped) == 3 - classes).float().mean()) > 0.9


def test_guidance_0_forgets_the_class(made: Generator) -> None:
    """And 1 is the conditional denoiser alone: what a guidance just beside it gives, to rounding."""
    numbers = torch.arange(12)
    noise = made.noise([0] * 12, numbers.tolist(), 0)
    free = Sampling(steps=6, guidance=0.0)
    first, last = (made.latents(torch.full((12,), label), noise, free, CPU) for label in (0, 3))
    assert torch.equal(first, last)
    exact, near = (
        made.latents(torch.zeros(12, dtype=torch.int64), noise, Sampling(steps=6, guidance=g), CPU) for g in (1, 1.0001)
    )
    torch.testing.assert_close(exact, near, atol=1e-2, rtol=1e-2)


def test_the_same_seed_gives_the_same_images_however_many(made: Generator) -> None:
    classes = torch.arange(4).repeat_interleave(3)
    numbers = torch.arange(3).repeat(4)
    all_of_them = made.images(classes, numbers, FAST, CPU, seed=5)
    assert torch.equal(all_of_them, made.images(classes, numbers, FAST, CPU, seed=5))
    assert not torch.equal(all_of_them, made.images(classes, numbers, FAST, CPU, seed=6))
    few = made.images(classes[::3], numbers[::3], replace(FAST, batch=1), CPU, seed=5)
    assert int((few.int() - all_of_them[::3].int()).abs().max()) <= 1  # another batch rounds otherwise


def test_it_is_kept_and_found(home: Store, tiny_data: Dataset, coder: Autoencoder, made: Generator) -> None:
    path = train_generator(tiny_data, coder, DENOISER, store=home, execution=CPU)
    meta = read_artifact(path).meta
    assert meta["fingerprint"] == made.fingerprint
    assert meta["losses"][-1] < meta["losses"][0]
    assert made.size == sum(entry["bytes"] for entry in read_artifact(path).files.values())
    other = train_generator(tiny_data, coder, replace(DENOISER, epochs=1), store=home, execution=CPU)
    assert other != path


@pytest.mark.parametrize("spec", ["unet:width=16", "unet:width=16,levels=1", "dit:width=24,depth=1,heads=2,patch=2"])
def test_every_denoiser_tells_for_any_class_and_none(spec: str) -> None:
    shape = (3, 4, 4)
    one, again, other = (build_denoiser(spec, shape, 5, seed) for seed in (0, 0, 1))
    latents, times = torch.randn(6, *shape, generator=stream(0, "z")), torch.linspace(0, 999, 6)
    with torch.no_grad():
        told = [network(latents, times, torch.arange(6)) for network in (one, again, other)]
    assert told[0].shape == latents.shape
    assert torch.equal(told[0], told[1])
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in other.parameters())
    assert not one.training
    assert not one.train().training


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("unit", UnknownNameError, "There is no denoiser named 'unit'"),
        ("dit:wide=3", ConfigError, "has no option 'wide'"),
        ("dit:width=64,heads=3", ConfigError, "heads share evenly"),
        ("dit:patch=3", ConfigError, "whole patches of 3"),
        ("unet:width=12", ConfigError, "multiple of 8"),
        ("unet:levels=4", ConfigError, "cannot be. Choose fewer levels"),
    ],
)
def test_denoisers_that_make_no_sense(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_denoiser(spec, (3, 4, 4), 4, 0)


def test_what_no_generator_can_be_trained_on(
    home: Store, tiny_data: Dataset, grey_data: Dataset, coder: Autoencoder
) -> None:
    with pytest.raises(TeacherMismatchError, match="Train one for them"):
        train_generator(grey_data, coder, DENOISER, store=home, execution=CPU)
    left = (tiny_data.train.targets != 2).nonzero().flatten()
    with pytest.raises(ConfigError, match="The class 'class c' of tiny has no training images"):
        train_generator(
            replace(tiny_data, train=tiny_data.train.subset(left)), coder, DENOISER, store=home, execution=CPU
        )
    with pytest.raises(ConfigError, match="dropped classes"):
        GeneratorConfig(drop=1.0)
    with pytest.raises(UnknownNameError, match="linear"):
        GeneratorConfig(schedule="linear")


# --- from samples to a set


def chosen(made: Generator, data: Dataset, choice: Choice, ipc: int = 3, **more: Any) -> Any:
    return choose_images(made, data, FAST, choice, ipc=ipc, seed=0, execution=CPU, progress=Silent(), **more)


def test_plain_samples_are_the_first(made: Generator, tiny_data: Dataset) -> None:
    found = chosen(made, tiny_data, Choice())
    classes = torch.arange(4).repeat_interleave(3)
    expected = made.images(classes, torch.arange(3).repeat(4), replace(FAST, batch=3), CPU, seed=0)
    assert torch.equal(found.images, expected)
    assert found.weights is None


def test_prototypes_carry_their_clusters_shares(made: Generator, tiny_data: Dataset) -> None:
    found = chosen(made, tiny_data, Choice(how="prototypes", strength=0.4), ipc=4)
    assert found.images.shape == (16, 3, 16, 16)
    torch.testing.assert_close(found.weights.view(4, 4).mean(dim=1), torch.ones(4))
    assert float((place_of(found.images) == torch.arange(4).repeat_interleave(4)).float().mean()) > 0.9
    with pytest.raises(ConfigError, match="50 prototypes need as many real images of each class, and one has 40"):
        chosen(made, tiny_data, Choice(how="prototypes"), ipc=50)


def test_prototypes_are_cluster_centres() -> None:
    draws = stream(0, "clusters")
    groups = [torch.randn(n, 2, 2, 2, generator=draws) * 0.01 + at for n, at in ((30, 5.0), (10, -5.0))]
    centres, weights = prototypes(torch.cat(groups), 2, seed=0)
    order = centres.flatten(1).mean(dim=1).argsort()
    torch.testing.assert_close(centres[order].flatten(1).mean(dim=1), torch.tensor([-5.0, 5.0]), atol=0.02, rtol=0)
    assert weights[order].tolist() == [0.5, 1.5]


def test_the_best_of_many() -> None:
    sure = torch.tensor([0.9, 0.6, 0.4, 0.8, 0.3])
    rest = torch.tensor([0.1, 0.4, 0.6, 0.2, 0.7])
    probabilities = torch.stack([sure, rest], dim=1)
    assert best_of(probabilities, 0, 4, "easy").tolist() == [0, 3, 1, 2]
    assert best_of(probabilities, 0, 4, "hard").tolist() == [1, 3, 0, 2]  # wrong ones come last all the same
    assert best_of(probabilities, 0, 2, "auto").tolist() == [0, 3]
    assert best_of(probabilities.repeat(4, 1), 0, 11, "auto").tolist()[0] == 1


def test_min_max_goes_along_the_slopes() -> None:
    draws = stream(0, "z")
    clean, real = torch.randn(4, 2, 3, 3, generator=draws), torch.randn(7, 2, 3, 3, generator=draws)
    own = clean.flatten(1).clone().requires_grad_()
    unit = torch.nn.functional.normalize(own, dim=1)
    least = (unit @ torch.nn.functional.normalize(real.flatten(1), dim=1).T).min(dim=1).values
    (up,) = torch.autograd.grad(least.sum(), own, retain_graph=True)
    squared = own.detach().norm(dim=1, keepdim=True) ** 2
    torch.testing.assert_close(
        min_max(clean, real, 0.3, 0.0).flatten(1), own.detach() + 0.3 * squared * up, atol=1e-5, rtol=1e-4
    )
    still = unit.detach()
    alike = unit @ still.T
    (down,) = torch.autograd.grad(alike.masked_fill(torch.eye(4, dtype=torch.bool), -9).max(dim=1).values.sum(), own)
    torch.testing.assert_close(
        min_max(clean, None, 0.0, 0.2).flatten(1), own.detach() - 0.2 * squared * down, atol=1e-5, rtol=1e-4
    )
    assert torch.equal(min_max(clean, real, 0.0, 0.0), clean)


def test_nudges_make_a_class_s_images_less_alike(made: Generator, tiny_data: Dataset) -> None:
    def likeness(choice: Choice) -> float:
        found = chosen(made, tiny_data, choice, ipc=6)
        latents = torch.nn.functional.normalize(made.autoencoder.encode(found.images, CPU).flatten(1), dim=1).view(
            4, 6, -1
        )
        alike = latents @ latents.transpose(1, 2)
        alike.diagonal(dim1=1, dim2=2).fill_(-1)
        return float(alike.max(dim=2).values.mean())

    assert likeness(Choice(diverse=0.1)) < likeness(Choice())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"how": "all"}, UnknownNameError, "There is no choice of samples named 'all'"),
        ({"pick": "random"}, UnknownNameError, "There is no pick of candidates named 'random'"),
        ({"candidates": 0}, ConfigError, "1 candidate or more"),
        ({"how": "prototypes", "strength": 0.0}, ConfigError, "strength=0"),
        ({"diverse": -1.0}, ConfigError, "diverse=-1"),
        ({"candidates": 8}, ConfigError, "candidates is for how=best, and here how=plain"),
        ({"how": "prototypes", "pick": "easy"}, ConfigError, "pick is for how=best, and here how=prototypes"),
        ({"how": "best", "strength": 0.5}, ConfigError, "strength is for how=prototypes"),
    ],
)
def test_choices_that_make_no_sense(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Choice(**changes)


# --- as many as a time allows


class Clock:
    """A clock by which every batch takes as long as it is told to."""

    def __init__(self, generator: Generator, costs: list[float]) -> None:
        self.now, self.costs = 0.0, iter(costs)
        real = generator.images

        def images(*arguments: Any) -> Tensor:
            self.now += next(self.costs)
            return real(*arguments)

        object.__setattr__(generator, "images", images)

    def __call__(self) -> float:
        return self.now


def within(made: Generator, seconds: float, costs: list[float], batch: int = 6) -> Tensor:
    generator = copy.copy(made)  # whose own method stands before the class's
    clock = Clock(generator, costs)
    sampling = replace(FAST, batch=batch)
    return generate_within(
        generator, sampling, seconds, seed=0, execution=CPU, progress=Silent(), clock=clock
    )  # fmt: skip


def test_a_budget_ends_in_time_with_equal_classes(made: Generator) -> None:
    """The first two batches are not counted; of 10 seconds three of 3 fit, and the next is not begun."""
    found = within(made, 10, [9, 3, 3, 3, 3])
    assert len(found) == 16  # 18 images, 4 classes: the last two are left out
    classes = torch.arange(4).repeat_interleave(4)
    expected = made.images(classes, torch.arange(4).repeat(4), FAST, CPU, 0)
    assert int((found.int() - expected.int()).abs().max()) <= 1  # other batches round otherwise


def test_a_budget_reckons_with_the_longest_batch(made: Generator) -> None:
    assert len(within(made, 10, [1, 1, 1, 5, 1])) == 12  # after 6 seconds one of 5 might not fit


@pytest.mark.parametrize(
    ("seconds", "costs", "message"),
    [
        (0.0, [], "takes seconds above 0"),
        (2.0, [3.0, 3.0], "too short for one batch of 3 images"),
        (4.0, [3.0, 3.0, 3.0], "gave 3 images, and there are 4 classes"),
    ],
)
def test_a_budget_that_is_too_short(made: Generator, seconds: float, costs: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        within(made, seconds, costs, batch=3)


# --- measures


def test_a_mirrored_image_is_one_that_was_learned_by_heart(tiny_data: Dataset) -> None:
    images, targets = tiny_data.train.images[:4], tiny_data.train.targets[:4]
    found = nearest_real(images.flip(3), targets, tiny_data.train)
    assert found.distance.tolist() == [0.0] * 4
    assert found.index.tolist() == [0, 1, 2, 3]
    assert bool(found.mirrored.all())
    assert not bool(nearest_real(images, targets, tiny_data.train).mirrored.any())


def test_frechet_distance_against_its_formula() -> None:
    draws = stream(0, "f")
    one = torch.randn(50, 4, generator=draws)
    other = torch.randn(60, 4, generator=draws) * 2 + 1
    c1, c2 = torch.cov(one.double().T).numpy(), torch.cov(other.double().T).numpy()
    means = float((one.double().mean(0) - other.double().mean(0)).square().sum())
    expected = means + float((c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real).trace())
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_where_most_features_are_always_zero() -> None:
    """Those change nothing; torch's eigenvectors of such a covariance did not converge."""
    generator = torch.Generator().manual_seed(1)
    sides, whole = [torch.randn(700, 49, generator=generator).relu() for _ in range(2)], []
    for side in sides:
        live = torch.randperm(640, generator=generator)[:49]
        whole.append(torch.zeros(700, 640).index_copy(1, live, side))
        whole.append(torch.zeros(700, 640).index_copy(1, torch.arange(49), side))
    assert frechet_distance(whole[1], whole[3]) == pytest.approx(frechet_distance(*sides), rel=1e-6)
    moved = frechet_distance(whole[0], whole[2])
    assert moved > frechet_distance(*sides)
    assert moved == pytest.approx(frechet_distance(whole[2], whole[0]), rel=1e-6)


def test_frechet_distance_of_fewer_images_than_features() -> None:
    draws = stream(1, "f")
    one, other = torch.randn(7, 20, generator=draws), torch.randn(40, 20, generator=draws) * 2 + 1
    c1, c2 = torch.cov(one.double().T).numpy(), torch.cov(other.double().T).numpy()
    means = float((one.double().mean(0) - other.double().mean(0)).square().sum())
    root = linalg.sqrtm(c2).real
    between = (linalg.eigvalsh(root @ c1 @ root).clip(0) ** 0.5).sum()
    assert frechet_distance(one, other) == pytest.approx(means + float(c1.trace() + c2.trace()) - 2 * between, rel=1e-5)
    assert frechet_distance(other, one) == pytest.approx(frechet_distance(one, other))
    with pytest.raises(ConfigError, match="two images or more"):
        frechet_distance(one[:1], other)


def test_nearest_real_against_brute_force(tiny_data: Dataset) -> None:
    images, classes = tiny_data.test.images[:9], tiny_data.test.targets[:9]
    found = nearest_real(images, classes, tiny_data.train)
    for i, (image, label) in enumerate(zip(images, classes.tolist(), strict=True)):
        apart = (tiny_data.train.images.float() - image.float()).square().mean(dim=(1, 2, 3)).sqrt()
        apart[tiny_data.train.targets != label] = torch.inf
        assert int(apart.argmin()) == int(found.index[i])
        assert float(apart.min()) == pytest.approx(float(found.distance[i]), rel=1e-3)
    same = nearest_real(tiny_data.train.images[:2], tiny_data.train.targets[:2], tiny_data.train)
    assert same.index.tolist() == [0, 1]
    assert float(same.distance.max()) < 0.2
    empty = Split(tiny_data.train.images[:0], tiny_data.train.targets[:0])
    assert nearest_real(images[:1], classes[:1], empty).distance.tolist() == [torch.inf]


def test_agreement() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert agreement(probabilities, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
