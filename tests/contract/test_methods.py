"""What every distillation method promises. A new entry of METHODS is tested without new code."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    DistilledSet,
    DistillError,
    SoftlabelError,
    Split,
    TeacherMismatchError,
    UnknownNameError,
    build_config,
    fingerprint,
    plain,
)
from softlabel.distill import METHODS, check_method, distill, find_method
from softlabel.generate import AutoencoderConfig, GeneratorConfig, load_autoencoder, train_autoencoder, train_generator
from softlabel.models import build_model
from softlabel.store import Store, load_distilled, save_distilled
from softlabel.training import Execution, Teacher

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers, under numpy 2
CPU = Execution("cpu", "fp32")
EVERY = sorted(METHODS)
WITH_TEACHER = [name for name in EVERY if METHODS[name].teacher in ("required", "trajectory")]
LOOKING = [name for name in EVERY if METHODS[name].teacher != "no"]
WITHOUT_TEACHER = [name for name in EVERY if METHODS[name].teacher == "no"]
Run = Callable[..., DistilledSet]


def untrained(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model("convnet-2:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    # Statistics that are neither 0 nor 1, so that a change of them would show.
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.fill_(0.1 if name.endswith("mean") else 0.9)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-2:width=8", f"test-{seed}", None, 0, 0)


def unbalanced(data: Dataset, target: int, keep: int) -> Dataset:
    """`data` with `keep` training images of the class `target` only."""
    members = (data.train.targets == target).nonzero().flatten()[keep:]
    rest = torch.ones(len(data.train), dtype=torch.bool)
    rest[members] = False
    return replace(data, train=data.train.subset(rest.nonzero().flatten()))


@pytest.fixture(scope="module")
def teacher(tiny_data: Dataset) -> Teacher:
    return untrained(tiny_data)


def looked_at(spec: str, data: Dataset) -> list[Teacher]:
    """What a method looks at: a teacher, or checkpoints enough for any."""
    return [untrained(data, seed) for seed in range(10 if find_method(spec)[0].teacher == "trajectory" else 1)]


def asking(name: str) -> str:
    """The spec with which a method that may look at a teacher does."""
    return f"{name}:how=best" if name == "latent-diffusion" else name


Complete = Callable[[str, Dataset], str]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """The spec with which a method runs on some data: its name, and a generator for the one that needs it."""
    store, made = Store(tmp_path_factory.mktemp("generators")), {}

    def spec_of(name: str, data: Dataset) -> str:
        if name != "latent-diffusion":
            return name
        if data.info.name not in made:
            made[data.info.name] = hardly_trained(data, store)
        return f"{name}:steps=2,generator={made[data.info.name]}"

    return spec_of


def hardly_trained(data: Dataset, store: Store) -> Path:
    """A generator of the data, after one epoch."""
    coder = AutoencoderConfig(factor=2, width=8, epochs=1, batch=20)
    found = load_autoencoder(train_autoencoder(data, coder, store=store, execution=CPU))
    config = GeneratorConfig(denoiser="unet:width=8,levels=1", epochs=1, batch=20)
    return train_generator(data, found, config, store=store, execution=CPU)


@pytest.fixture(params=EVERY)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(tiny_data: Dataset, execution: Execution, complete: Complete) -> Run:
    def run(spec: str, *, ipc: int = 3, seed: int = 0, data: Dataset = tiny_data) -> DistilledSet:
        return distill(complete(spec, data), data, looked_at(spec, data), ipc=ipc, seed=seed, execution=execution)

    return run


def test_the_table_is_complete(name: str) -> None:
    method = METHODS[name]
    assert method.teacher in {"no", "optional", "required", "trajectory"}
    assert method.summary
    assert dataclasses.is_dataclass(method.config)
    assert fingerprint(method.config())  # a default for every field, and plain data
    check_method(name)


@pytest.mark.parametrize("ipc", [1, 3])
def test_count_order_and_shape(name: str, ipc: int, make: Run, complete: Complete, tiny_data: Dataset) -> None:
    made = make(name, ipc=ipc)
    assert made.images.shape == (4 * ipc, 3, 16, 16)
    assert made.images.dtype == torch.uint8
    assert made.targets.tolist() == [c for c in range(4) for _ in range(ipc)]
    assert (made.method, made.ipc, made.seed, made.info) == (complete(name, tiny_data), ipc, 0, tiny_data.info)
    assert len(torch.unique(made.images.flatten(1), dim=0)) == 4 * ipc


def test_real_images_are_images_of_their_class(name: str, make: Run, tiny_data: Dataset) -> None:
    made = make(name)
    if "train_indices" not in made.provenance:
        pytest.skip("makes images of its own")
    index = torch.tensor(made.provenance["train_indices"])
    assert len(set(index.tolist())) == len(made)
    assert torch.equal(made.images, tiny_data.train.images[index])
    assert torch.equal(made.targets, tiny_data.train.targets[index])


def test_one_seed_gives_one_set(name: str, make: Run) -> None:
    first, second = make(name, seed=7), make(name, seed=7)
    assert torch.equal(first.images, second.images)
    assert first.provenance == second.provenance
    assert first.digest == second.digest


def test_another_seed(name: str, make: Run) -> None:
    same = torch.equal(make(name, seed=0).images, make(name, seed=1).images)
    assert same is not METHODS[name].seeded


def test_the_global_generator_is_neither_read_nor_moved(name: str, make: Run) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = make(name)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(make(name).images, first.images)


def test_the_teacher_stays_as_it_was(name: str, make: Run, teacher: Teacher) -> None:
    before = {key: tensor.clone() for key, tensor in teacher.model.state_dict().items()}
    make(name)
    after = teacher.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module.training for module in teacher.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())


def test_the_data_stay_as_they_were(name: str, make: Run, tiny_data: Dataset) -> None:
    splits = (tiny_data.train, tiny_data.test)
    before = [(split.images.clone(), split.targets.clone()) for split in splits]
    made = make(name)
    made.images.zero_()  # a result that shares memory with the data would show
    for split, (images, targets) in zip(splits, before, strict=True):
        assert torch.equal(split.images, images)
        assert torch.equal(split.targets, targets)


def test_the_test_split_is_not_looked_at(name: str, make: Run, tiny_data: Dataset) -> None:
    blank = Split(torch.zeros_like(tiny_data.test.images), tiny_data.test.targets)
    assert torch.equal(make(name, data=replace(tiny_data, test=blank)).images, make(name).images)


@pytest.mark.parametrize("storage", ["png", "webp"])
def test_artifact_round_trip(name: str, storage: str, make: Run, tmp_path: Path) -> None:
    made = make(name)
    saved = save_distilled(made, tmp_path / "set", storage)
    loaded = load_distilled(tmp_path / "set")
    for found in (saved, loaded):
        assert torch.equal(found.images, made.images)
        assert torch.equal(found.targets, made.targets)
        for field in ("info", "method", "ipc", "seed", "factor", "digest"):
            assert getattr(found, field) == getattr(made, field)
        assert found.provenance == plain(made.provenance)
    files = [file for file in (tmp_path / "set").rglob("*") if file.suffix == f".{storage}"]
    assert loaded.image_bytes == sum(file.stat().st_size for file in files) > 0
    assert len(files) == len(made)


def test_provenance_names_the_settings_and_the_teachers(
    name: str, make: Run, complete: Complete, tiny_data: Dataset
) -> None:
    facts = make(name).provenance
    method, options = find_method(complete(name, tiny_data))
    config = build_config(method.config, options, "the method")
    assert facts["config"] == plain(config)
    asked = METHODS[name].looks_at(config, looked_at(name, tiny_data))
    assert facts["teachers"] == [one.fingerprint for one in asked]
    assert bool(asked) == (METHODS[name].teacher != "no" and name != "latent-diffusion")


def test_an_unknown_option_lists_the_options(name: str, make: Run) -> None:
    with pytest.raises(ConfigError) as caught:
        make(f"{name}:nonsense=1")
    message = str(caught.value)
    assert "'nonsense'" in message
    assert name in message
    options = [field.name for field in dataclasses.fields(METHODS[name].config)]
    assert all(option in message for option in options or ["none"])


def test_an_option_of_a_wrong_type_says_so(name: str) -> None:
    options = [field for field in dataclasses.fields(METHODS[name].config) if not isinstance(field.default, str)]
    if not options:
        pytest.skip("has no options that are not words")
    with pytest.raises(ConfigError, match=options[0].name):
        check_method(f"{name}:{options[0].name}=wrong")


def test_too_few_images_name_the_class_and_the_counts(name: str, make: Run, tiny_data: Dataset) -> None:
    if METHODS[name].reads:
        pytest.skip("makes as many images as one likes")
    with pytest.raises(DistillError) as caught:
        make(name, ipc=4, data=unbalanced(tiny_data, target=2, keep=3))
    message = str(caught.value)
    assert "'class c'" in message
    assert "needs 4 training images" in message
    assert "has 3" in message
    assert "--ipc" in message


def test_as_many_images_as_there_are(name: str, make: Run, tiny_data: Dataset) -> None:
    assert len(make(name, ipc=3, data=unbalanced(tiny_data, target=2, keep=3))) == 12


@pytest.mark.parametrize("ipc", [0, -1])
def test_no_images_per_class(name: str, ipc: int, make: Run) -> None:
    with pytest.raises(ConfigError, match=rf"--ipc must be 1 or more. Got {ipc}"):
        make(name, ipc=ipc)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_missing_teacher(name: str, tiny_data: Dataset, execution: Execution) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' needs a teacher.*softlabel teach"):
        distill(name, tiny_data, [], ipc=1, seed=0, execution=execution)


@pytest.mark.parametrize("name", WITHOUT_TEACHER)
def test_a_teacher_that_is_not_looked_at_changes_nothing(
    name: str, make: Run, tiny_data: Dataset, grey_data: Dataset, execution: Execution
) -> None:
    wrong = distill(name, tiny_data, [untrained(grey_data)], ipc=3, seed=0, execution=execution)
    assert torch.equal(wrong.images, make(name).images)


@pytest.mark.parametrize("name", LOOKING)
def test_a_teacher_for_other_classes_is_refused(
    name: str, tiny_data: Dataset, grey_data: Dataset, execution: Execution
) -> None:
    with pytest.raises(TeacherMismatchError, match="knows 3 classes of grey, the data tiny has 4"):
        distill(asking(name), tiny_data, [untrained(grey_data)], ipc=1, seed=0, execution=execution)


@pytest.mark.parametrize("name", LOOKING)
def test_a_teacher_for_another_class_order_is_refused(name: str, tiny_data: Dataset, execution: Execution) -> None:
    turned = replace(tiny_data.info, class_names=tiny_data.info.class_names[::-1])
    teacher = replace(untrained(tiny_data), info=turned)
    with pytest.raises(TeacherMismatchError, match="another order"):
        distill(asking(name), tiny_data, [teacher], ipc=1, seed=0, execution=execution)


def test_grey_images_that_are_not_square(
    name: str, grey_data: Dataset, execution: Execution, complete: Complete, tmp_path: Path
) -> None:
    made = distill(complete(name, grey_data), grey_data, looked_at(name, grey_data), ipc=2, seed=0, execution=execution)
    assert made.images.shape == (6, 1, 8, 12)
    save_distilled(made, tmp_path / "grey")
    assert torch.equal(load_distilled(tmp_path / "grey").images, made.images)


class Listener:
    """A Progress that counts."""

    def __init__(self) -> None:
        self.open: list[list[int]] = []
        self.closed: list[list[int]] = []

    def start(self, what: str, total: int) -> None:
        assert what
        self.open.append([0, total])

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.open[-1][0] += steps

    def finish(self, summary: str = "") -> None:
        self.closed.append(self.open.pop())


def test_progress_is_told_to_the_end(name: str, tiny_data: Dataset, execution: Execution, complete: Complete) -> None:
    listener = Listener()
    distill(
        complete(name, tiny_data),
        tiny_data,
        looked_at(name, tiny_data),
        ipc=1,
        seed=0,
        execution=execution,
        progress=listener,
    )
    assert not listener.open
    assert all(done == total for done, total in listener.closed)


def test_an_unknown_method_lists_the_methods() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_method("heding:unit=true")
    assert "Did you mean 'herding'" in str(caught.value)
    assert all(name in str(caught.value) for name in METHODS)


def test_random_sets_of_one_seed_are_nested(make: Run) -> None:
    small, large = make("random", ipc=2), make("random", ipc=5)
    for target in range(4):
        assert torch.equal(small.images[small.targets == target], large.images[large.targets == target][:2])


# Methods of outsiders.

OUTSIDE = '''
from dataclasses import dataclass

import torch

from softlabel.distill import Images


@dataclass(frozen=True, kw_only=True)
class FirstConfig:
    skip: int = 0


@dataclass(frozen=True)
class Demanding:
    needed: int


def first(config: FirstConfig, data, teachers, *, ipc, generator, execution, progress) -> Images:
    """The first images of each class."""
    index = [(data.train.targets == c).nonzero().flatten()[config.skip : config.skip + ipc] for c in range(4)]
    chosen = data.train.subset(torch.cat(index))
    return Images(chosen.images, chosen.targets, provenance={"teachers seen": len(teachers)})


def unannotated(config, data, teachers, **rest):
    return None


def not_a_dataclass(config: int, data, teachers, **rest):
    return None


def no_default(config: Demanding, data, teachers, **rest):
    return None


def returns_nothing(config: FirstConfig, data, teachers, **rest):
    return None


def wrong_count(config: FirstConfig, data, teachers, *, ipc, **rest) -> Images:
    return Images(data.train.images[:2], data.train.targets[:2])


def floats(config: FirstConfig, data, teachers, *, ipc, **rest) -> Images:
    targets = torch.arange(4).repeat_interleave(ipc)
    return Images(torch.zeros(len(targets), 3, 16, 16), targets)


number = 3
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "strangers_kit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "methods.py").write_text(OUTSIDE)
    (package / "broken.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    import sys

    for module in [name for name in sys.modules if name.startswith("strangers_kit")]:
        del sys.modules[module]


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("tail", "skip"), [("", 0), (":skip=2", 2)])
def test_an_outsiders_method(tail: str, skip: int, make: Run, tiny_data: Dataset, tmp_path: Path) -> None:
    spec = f"strangers_kit.methods:first{tail}"
    made = make(spec, ipc=2)
    third = (tiny_data.train.targets == 3).nonzero().flatten()
    assert torch.equal(made.images[made.targets == 3], tiny_data.train.images[third[skip : skip + 2]])
    assert made.method == spec
    assert made.provenance["config"] == {"skip": skip}
    assert made.provenance["teachers seen"] == 1
    save_distilled(made, tmp_path / "set")
    assert find_method(spec)[0].summary == "The first images of each class."


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("spec", "fragments"),
    [
        ("strangers_kit.methods:second", ["strangers_kit.methods:second", "package.module:function"]),
        ("strangers_kit.nowhere:first", ["cannot be imported", "Python path"]),
        ("strangers_kit.methods", ["cannot be imported", "package.module:function"]),
        ("strangers_kit.broken:first", ["cannot be imported", "boom"]),
        (".methods:first", ["cannot be imported", "package.module:function"]),
        ("strangers_kit.methods:number", ["strangers_kit.methods:number", "3 is not a"]),
        ("strangers_kit.methods:unannotated", ["`config`", "dataclass"]),
        ("strangers_kit.methods:not_a_dataclass", ["`config`", "dataclass"]),
        ("strangers_kit.methods:no_default", ["default"]),
        ("strangers_kit.methods:first:nonsense=1", ["nonsense", "skip"]),
        ("strangers_kit.methods:first:skip=wrong", ["skip", "int"]),
    ],
)
def test_an_outsiders_method_that_cannot_be_used(spec: str, fragments: list[str]) -> None:
    with pytest.raises(SoftlabelError) as caught:
        check_method(spec)
    assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("function", ["returns_nothing", "wrong_count", "floats"])
def test_an_outsiders_method_that_makes_something_else(function: str, make: Run) -> None:
    with pytest.raises(SoftlabelError) as caught:
        make(f"strangers_kit.methods:{function}", ipc=2)
    assert f"strangers_kit.methods:{function}" in str(caught.value)
    assert "uint8 images 8x3x16x16, 2 for each of the 4 classes" in str(caught.value)
