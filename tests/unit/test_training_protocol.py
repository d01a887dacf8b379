"""Protocols, optimizers, executions, measuring: what they name, build, find and refuse."""

import contextlib
import copy
import ctypes
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, Split, UnknownNameError, plain
from softlabel.evaluation import find_protocol
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.training import (
    OPTIMIZERS,
    POLICIES,
    REGIMES,
    Checks,
    Execution,
    HardPhase,
    History,
    Normaliser,
    Optimizer,
    Protocol,
    Schedule,
    Tempering,
    environment,
    fit,
    keep_freed_memory,
    measure_accuracy,
    peak_memory,
    resolve_execution,
)
from softlabel.views import CutMix, FactorCrop, Flip, PatchShuffle, RandomResizedCrop, check_policy

BASE = Protocol(name="base", source="somewhere", epochs=10, batch=32, optimizer=Optimizer())

# --- fingerprints ----------------------------------------------------------------------------------------------

CHANGES: dict[str, list[Any]] = {
    "epochs": [11],
    "batch": [33, "gift", "rded"],
    "optimizer": [
        Optimizer(name="sgd"),
        Optimizer(lr=2e-3),
        Optimizer(weight_decay=0.0),
        Optimizer(momentum=0.9),
        Optimizer(nesterov=True, momentum=0.9),
        Optimizer(betas=(0.9, 0.99)),
        Optimizer(decay_on="matrices"),
    ],
    "views": ["gift", "rded", (Flip(),), (Flip(p=0.1),), (CutMix(),)],
    "labels": ["hard", "fixed"],
    "loss": [Loss("kl"), Loss.parse("gift:gamma=0.1"), Loss.parse("gift:gamma=0.2")],
    "schedule": [Schedule(name="cosine"), Schedule(gamma=0.1), Schedule(warmup=0.1)],
    "label_epochs": [3, 4],
    "hard_phase": [HardPhase(), HardPhase(start=0.5), HardPhase(loss=Loss("ce"))],
    "tempering": [Tempering(), Tempering(every=10), Tempering(calibrate=False)],
    "extra_epoch": [True],
    "weights": [False],
    "norm_momentum": [0.19],
    "checks": [Checks(count=4), Checks(every=1), Checks(start=0.5)],
}


def test_the_fingerprint_changes_with_everything_that_changes_a_number() -> None:
    assert {field.name for field in fields(Protocol)} == {*CHANGES, "name", "source", "renew_optimizer"}
    protocols = [BASE, *(replace(BASE, **{key: value}) for key, values in CHANGES.items() for value in values)]
    halfway = replace(BASE, schedule=Schedule(name="halfway"))
    protocols += [halfway, replace(halfway, renew_optimizer=True)]
    assert len({protocol.fingerprint for protocol in protocols}) == len(protocols)


def test_the_fingerprint_ignores_name_and_source() -> None:
    assert replace(BASE, name="other", source="elsewhere").fingerprint == BASE.fingerprint


def test_the_fingerprint_is_the_same_everywhere() -> None:
    assert replace(BASE, views=(Flip(), CutMix())).fingerprint == replace(BASE, views=(Flip(), CutMix())).fingerprint
    assert BASE.fingerprint == "f5a05efbfe92895e"


def test_a_protocol_is_plain_data() -> None:
    assert plain(replace(BASE, views=(Flip(),)))["views"] == [{"p": 0.5, "op": "flip"}]


# --- protocols -------------------------------------------------------------------------------------------------


def test_an_extra_epoch_is_one_more() -> None:
    assert BASE.total_epochs == 10
    assert replace(BASE, extra_epoch=True).total_epochs == 11


def test_only_stored_labels_come_in_pools() -> None:
    lpld = find_protocol("lpld")
    assert (lpld.labelled_epochs, lpld.with_labels("replay").labelled_epochs) == (30, 30)
    for other in (lpld.with_labels("online"), lpld.with_labels("fixed"), lpld.with_loss("ce")):
        assert (other.label_epochs, other.labelled_epochs) == (0, 300)


def test_fewer_epochs_keep_the_shares_of_a_protocol() -> None:
    assert find_protocol("lpld", 60).label_epochs == 6
    assert find_protocol("lpld", 5).label_epochs == 1
    short, long = find_protocol("lpqld", 60).tempering, find_protocol("lpqld").tempering
    assert short is not None
    assert long is not None
    assert [short.teacher(epoch) for epoch in (0, 6, 59)] == [long.teacher(epoch) for epoch in (0, 30, 299)]
    assert find_protocol("lpld", 300) is find_protocol("lpld")


def test_labels_and_losses_are_changed_together() -> None:
    assert BASE.with_labels(None) is BASE
    assert BASE.with_labels("fixed").labels == "fixed"
    assert BASE.with_loss("kl:temperature=4").loss == Loss("kl", (("temperature", 4),))
    assert (BASE.with_loss("kl").labels, BASE.with_loss("ce").labels) == ("online", "hard")
    with pytest.raises(UnknownNameError, match="no loss named 'kk'"):
        BASE.with_loss("kk")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "A protocol needs 1 epoch or more. Got 0 instead."),
        (
            {"views": "rdd"},
            "There is no view policy named 'rdd'. Did you mean 'rded'? Choose one of: ",
        ),
        ({"labels": "soft"}, "There is no label regime named 'soft'. Choose one of: fixed, hard, online, replay."),
        ({"batch": -1}, "A batch holds 1 image or more. Got -1 instead."),
    ],
)
def test_a_protocol_that_cannot_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        replace(BASE, **change)
    assert message in str(caught.value)


def test_policies_know_the_tiles_of_the_images() -> None:
    assert replace(BASE, views="rded").policy(2) == (
        PatchShuffle(factor=2),
        RandomResizedCrop(min_scale=0.5, max_scale=1.0),
        Flip(),
        CutMix(alpha=1.0),
    )
    assert replace(BASE, views="gift").policy(2)[0] == FactorCrop(factor=1)
    assert replace(BASE, views="gift-factor").policy(2)[0] == FactorCrop(factor=2)
    assert replace(BASE, views=(Flip(),)).policy(3) == (Flip(),)


@pytest.mark.parametrize("name", POLICIES)
def test_every_listed_policy_works_and_can_be_named(name: str) -> None:
    check_policy(replace(BASE, views=name).policy(2), 32, 32)


def test_regimes_are_those_of_the_label_sources() -> None:
    assert set(REGIMES) == {"hard", "fixed", "online", "replay"}


# --- optimizers ------------------------------------------------------------------------------------------------


def some_model() -> nn.Module:
    return build_model("resnet-18:width=2", image_shape=(3, 8, 8), classes=3, seed=0)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.99)}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.99)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.7}),
    ],
)
def test_every_optimizer_is_built_with_its_settings(name: str, kind: type, settings: dict[str, Any]) -> None:
    config = Optimizer(name=name, lr=0.03, weight_decay=0.02, momentum=0.7, nesterov=name == "sgd", betas=(0.8, 0.99))
    built = config.build(some_model())
    assert type(built) is kind
    (group,) = built.param_groups
    assert {key: group[key] for key in ("lr", "weight_decay", *settings)} == {
        "lr": 0.03,
        "weight_decay": 0.02,
        **settings,
    }


def test_every_listed_optimizer_can_be_built_and_steps() -> None:
    for name in OPTIMIZERS:
        model = some_model()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        built = Optimizer(name=name, lr=0.1).build(model)
        model(torch.ones(2, 3, 8, 8)).square().sum().backward()
        built.step()
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), name


def test_decay_on_matrices_spares_biases_and_norms() -> None:
    model = some_model()
    built = Optimizer(weight_decay=0.01, decay_on="matrices").build(model)
    decays = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            weighted = isinstance(module, (nn.Conv2d, nn.Linear)) and key == "weight"
            assert decays[id(parameter)] == (0.01 if weighted else 0.0), f"{name}.{key}"


def test_decay_on_all_means_all() -> None:
    (group,) = Optimizer(weight_decay=0.01).build(some_model()).param_groups
    assert len(group["params"]) == len(list(some_model().parameters()))
    assert group["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "sdg"}, "There is no optimizer named 'sdg'. Did you mean 'sgd'?"),
        ({"lr": 0.0}, "The learning rate must be a number above 0. Got 0.0 instead."),
        ({"lr": -1.0}, "The learning rate must be a number above 0. Got -1.0 instead."),
        ({"lr": float("nan")}, "The learning rate must be a number above 0. Got nan instead."),
        ({"weight_decay": -0.1}, "The weight decay must be 0 or more. Got -0.1 instead."),
        ({"betas": (0.9, 1.0)}, "Momentum and betas must lie in 0..1, below 1."),
        ({"momentum": 1.0}, "Momentum and betas must lie in 0..1, below 1."),
        ({"nesterov": True}, "Nesterov needs a momentum above 0."),
        ({"decay_on": "weights"}, "There is no decay_on named 'weights'. Choose one of: all, matrices."),
    ],
)
def test_an_optimizer_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        Optimizer(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "up"}, "There is no schedule named 'up'."),
        ({"warmup": 1.0}, "A schedule needs warmup from 0 to below 1"),
        ({"gamma": 0.0}, "A schedule needs warmup from 0 to below 1"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        Schedule(**settings)
    assert message in str(caught.value)


# --- pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_data", "grey_data"])
def test_normalised_training_images_have_mean_0_and_std_1(name: str, request: pytest.FixtureRequest) -> None:
    data: Dataset = request.getfixturevalue(name)
    floats = Normaliser(data.info, torch.device("cpu"))(data.train.images)
    assert floats.dtype == torch.float32
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert floats.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (floats.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4


def test_normalisation_is_its_formula(tiny_data: Dataset) -> None:
    info, image = tiny_data.info, tiny_data.train.images[:1]
    floats = Normaliser(info, torch.device("cpu"))(image)
    for channel in range(3):
        expected = (image[0, channel].double() / 255 - info.mean[channel]) / info.std[channel]
        torch.testing.assert_close(floats[0, channel].double(), expected, rtol=0, atol=1e-5)


# --- executions ------------------------------------------------------------------------------------------------


def test_auto_is_settled() -> None:
    execution = resolve_execution()
    assert execution.device in ("cpu", "cuda")
    assert execution.precision in ("fp32", "bf16")
    assert resolve_execution("cpu", "fp32") == Execution("cpu", "fp32")
    assert resolve_execution("cpu", "bf16").precision == "bf16"


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no precision named 'fp16'.*Choose one of: auto, bf16, fp32\."):
        resolve_execution("cpu", "fp16")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=rf"The device '{device}' cannot be used \(.*\)\. Choose auto"):
            resolve_execution(device)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_forward_passes_run_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with Execution("cpu", precision).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_deterministic_leaves_the_settings_of_cudnn_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    cudnn = torch.backends.cudnn
    with contextlib.suppress(RuntimeError), Execution("cpu", "fp32").deterministic():
        inside = (cudnn.benchmark, cudnn.deterministic)
        raise RuntimeError("stop")
    assert inside == (False, True)
    assert (cudnn.benchmark, cudnn.deterministic) == (True, False)


def test_the_environment_is_json(execution: Execution) -> None:
    facts = environment(execution)
    assert plain(facts) == facts
    assert {"softlabel", "torch", "numpy", "python", "cpu", "threads", "device", "precision"} <= facts.keys()
    assert facts["precision"] == "fp32"
    assert peak_memory(execution) > 50_000_000


class FakeLibrary:
    """A C library whose allocator accepts the settings, or refuses one."""

    def __init__(self, refused: int = 0) -> None:
        self.settings: dict[int, int] = {}
        self.refused = refused

    def mallopt(self, key: int, value: int) -> int:
        self.settings[key] = value
        return int(key != self.refused)


def test_freed_memory_is_kept_where_the_allocator_can(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory() is True
    assert library.settings[-4] == 0  # M_MMAP_MAX: no block is mapped on its own
    assert library.settings[-1] == 2**31 - 1  # M_TRIM_THRESHOLD: the heap is not trimmed
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary(refused=-2))
    assert keep_freed_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False


# --- measuring -------------------------------------------------------------------------------------------------


class Brightness(nn.Module):
    """Says class 1 where the normalised image is brighter than the average, else class 0; has a batch norm to spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        bright = self.norm(images).mean(dim=(1, 2, 3))
        return torch.stack([-bright, bright], dim=1)


def test_accuracy_is_counted_over_all_batches(grey_data: Dataset, execution: Execution) -> None:
    """1100 images, half of them bright, in three batches; a quarter of the targets wrong."""
    info = replace(grey_data.info, mean=(0.5,), std=(0.25,))
    images = torch.full((1100, 1, 8, 12), 40, dtype=torch.uint8)
    images[::2] = 200
    targets = (images[:, 0, 0, 0] > 100).long()
    targets[:275] = 1 - targets[:275]
    model = Brightness().train()
    assert measure_accuracy(model, Split(images, targets), info, execution) == pytest.approx(0.75)
    assert sum(model.sizes) == 1100
    assert max(model.sizes) < 1100
    assert not model.training
    assert int(model.norm.num_batches_tracked) == 0


def test_final_is_the_last_check_and_best_the_highest() -> None:
    accuracies = (0.2, 0.7, 0.5)
    history = History(curve=[{"epoch": epoch, "test_accuracy": a} for epoch, a in enumerate(accuracies, start=1)])
    assert (history.final, history.best_test) == (0.5, 0.7)


def test_a_renewed_optimizer_forgets_its_momentum(tiny_data: Dataset) -> None:
    protocol = replace(
        find_protocol("challenge-2024", epochs=4),
        views="none",
        batch=len(tiny_data.train),
        optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9),
    )
    shape, classes = tiny_data.info.image_shape, tiny_data.info.classes
    expected = build_model("convnet-1:width=4", image_shape=shape, classes=classes, seed=0)
    found, kept = copy.deepcopy(expected), copy.deepcopy(expected)
    images = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.train.images)
    # The evaluator's own loop: a new optimizer once epoch E//2 + 1 has run.
    for rate, steps in ((0.05, 4), (0.005, 1)):
        optimizer = torch.optim.SGD(expected.parameters(), lr=rate, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(expected(images), tiny_data.train.targets).backward()
            optimizer.step()
    for model, renewed in ((found, True), (kept, False)):
        own = replace(protocol, renew_optimizer=renewed)
        fit(model, tiny_data.train, protocol=own, info=tiny_data.info, seed=0, execution=Execution("cpu", "fp32"))
    close = [torch.allclose(a, b, atol=2e-4) for a, b in zip(found.parameters(), expected.parameters(), strict=True)]
    other = [torch.allclose(a, b, atol=2e-4) for a, b in zip(kept.parameters(), expected.parameters(), strict=True)]
    assert all(close)
    assert not all(other)


def test_only_schedules_of_steps_renew_the_optimizer() -> None:
    with pytest.raises(ConfigError, match="where the rate falls in steps"):
        replace(find_protocol("rded"), renew_optimizer=True)


def test_the_challenge_s_protocols_are_hard_s_but_for_the_optimizer() -> None:
    challenge, hard = find_protocol("challenge-2024"), find_protocol("hard")
    assert replace(challenge, renew_optimizer=False, weights=True).fingerprint == hard.fingerprint
    assert challenge.fingerprint != hard.fingerprint
    assert find_protocol("challenge-2024-generative").total_epochs == 101


def test_an_evaluator_that_is_given_images_alone_knows_no_weights(tiny_data: Dataset) -> None:
    weights = torch.linspace(0.2, 1.8, len(tiny_data.train))
    weighed = replace(tiny_data.train, weights=weights)
    losses = []
    for split, counts in ((weighed, True), (weighed, False), (tiny_data.train, True)):
        model = build_model("convnet-1:width=4", image_shape=tiny_data.info.image_shape, classes=4, seed=0)
        own = replace(find_protocol("challenge-2024", epochs=2), views="none", batch=8, weights=counts)
        losses.append(
            fit(model, split, protocol=own, info=tiny_data.info, seed=0, execution=Execution("cpu", "fp32")).train_loss
        )
    assert losses[1] == losses[2]
    assert losses[0] != losses[2]
