"""Streams, specs, fingerprints, nouns and messages of the core."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import (
    ConfigError,
    DataError,
    Dataset,
    DatasetInfo,
    DiskFullError,
    DistilledSet,
    LabelSource,
    MissingExtraError,
    SoftlabelError,
    Split,
    StoreError,
    UnknownNameError,
    build_config,
    fingerprint,
    format_spec,
    human_bytes,
    human_seconds,
    parse_spec,
    plain,
    stream,
    stream_seed,
    tensor_fingerprint,
)
from softlabel.labels import HardLabels

# --- streams ---------------------------------------------------------------------------------------------------


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert stream_seed(0, "order", 3) == 2243224229351528686
    expected = [0.22371941804885864, 0.4318651556968689, 0.3642181158065796]
    assert torch.rand(3, generator=stream(0, "views", 1)).tolist() == expected


def test_streams_of_other_seeds_and_names_are_others() -> None:
    names: list[tuple[Any, ...]] = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", "b"), (0, "ab")]
    draws = [tuple(torch.rand(4, generator=stream(*name)).tolist()) for name in names]
    assert len(set(draws)) == len(names)


def test_name_parts_do_not_run_into_each_other() -> None:
    assert len({stream_seed(1, "1", 2), stream_seed(11, 2), stream_seed(1, "12"), stream_seed(1, 1, 2, "")}) == 4


def test_drawing_from_one_stream_moves_no_other_and_not_the_global_one() -> None:
    before = torch.get_rng_state()
    first = stream(7, "a")
    torch.rand(100, generator=stream(7, "b"))
    again = stream(7, "a")
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=again))
    assert torch.equal(torch.get_rng_state(), before)


def test_stream_seeds_fit_torch_and_keep_their_distance() -> None:
    seeds = [stream_seed(seed, "x") for seed in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 1000


# --- specs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("kl", "kl", {}),
        ("kl:", "kl", {}),
        ("kl:temperature=4", "kl", {"temperature": 4}),
        ("convnet-3:width=64,norm=instance", "convnet-3", {"width": 64, "norm": "instance"}),
        (" a : b = 0.5 , c=true,d=False, e=-1e-3 ", "a", {"b": 0.5, "c": True, "d": False, "e": -0.001}),
        ("a:b=x=y", "a", {"b": "x=y"}),
        ("a:b=(1,", "a", {"b": "(1"}),
        ("a:b=", "a", {"b": ""}),
        ("a:b='4'", "a", {"b": "4"}),
        ("a:b=None", "a", {"b": "None"}),
        ("a:b=__import__('os')", "a", {"b": "__import__('os')"}),
    ],
)
def test_specs_are_read(spec: str, name: str, options: dict[str, Any]) -> None:
    found = parse_spec(spec)
    assert found == (name, options)
    assert [type(value) for value in found[1].values()] == [type(value) for value in options.values()]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 4}, {"gamma": 0.1, "scale": True, "norm": "batch"}, {"b": False, "a": 1e-30}]
)
def test_specs_survive_being_written_and_read(options: dict[str, Any]) -> None:
    assert parse_spec(format_spec("name", options)) == ("name", options)


@pytest.mark.parametrize("part", ["b", "=3", "b=1,c", " =2"])
def test_a_spec_that_cannot_be_read_shows_how_to_write_it(part: str) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the option .* write it as name:key=value,key=value\."):
        parse_spec(f"a:{part}")


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"The option 'b' is given twice in 'a:b=1,b=1': keep one\."):
        parse_spec("a:b=1,b=1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    count: int = 3
    rate: float = 0.5
    name: str = "x"
    on: bool = False
    limit: int | None = None


def test_a_config_is_built_with_checked_types() -> None:
    built = build_config(Settings, {"count": 4, "rate": 2, "name": "y", "on": True, "limit": 5}, "the thing")
    assert built == Settings(count=4, rate=2.0, name="y", on=True, limit=5)
    assert type(built.rate) is float


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuont": 4}, "The thing has no option 'cuont'. Its options are: count, rate, name, on, limit."),
        ({"count": 0.5}, "The option 'count' of the thing must be int. Got 0.5 instead."),
        ({"count": True}, "The option 'count' of the thing must be int. Got True instead."),
        ({"rate": True}, "The option 'rate' of the thing must be float. Got True instead."),
        ({"rate": "fast"}, "The option 'rate' of the thing must be float. Got 'fast' instead."),
        ({"on": 1}, "The option 'on' of the thing must be bool. Got 1 instead."),
        ({"name": 3}, "The option 'name' of the thing must be str. Got 3 instead."),
    ],
)
def test_a_config_refuses_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Settings, options, "the thing")
    assert str(caught.value) == message


# --- fingerprints and plain data -------------------------------------------------------------------------------


def test_fingerprints_never_change() -> None:
    assert fingerprint({"a": 1, "b": (1.5, None, True, "é")}, [2]) == "420cada0bb7188f0"
    assert tensor_fingerprint(torch.arange(3)) == "bbfdfa1ecf21e208"


def test_fingerprints_see_values_and_not_containers_or_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint((1, 2)) == fingerprint([1, 2])
    assert fingerprint(Settings()) == fingerprint(plain(Settings()))
    values = [1, 2, "1", True, None, [1], [[1]], {"a": 1}, {"a": [1]}, Settings(), Settings(count=4)]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(1, 2) != fingerprint(12)


def test_fingerprints_do_not_depend_on_the_process() -> None:
    code = "from softlabel.core import fingerprint; print(fingerprint({'x': {'b': 1, 'a': 2}}, 'text'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == fingerprint({"x": {"a": 2, "b": 1}}, "text")
    assert len(found) == 16


def test_fingerprints_refuse_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))


def test_tensor_fingerprints_see_dtype_shape_and_bytes_and_not_layout() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    same = [pixels, pixels.clone(), pixels.contiguous(memory_format=torch.channels_last)]
    assert len({tensor_fingerprint(tensor) for tensor in same}) == 1
    other = pixels.clone()
    other[1, 2, 1, 1] += 1
    others = [pixels, other, pixels.view(3, 2, 2, 2), pixels.to(torch.int8), pixels.flip(0), torch.tensor(1.0)]
    assert len({tensor_fingerprint(tensor) for tensor in others}) == len(others)
    assert tensor_fingerprint(pixels, other) != tensor_fingerprint(other, pixels)
    assert tensor_fingerprint(torch.ones(2, requires_grad=True)) == tensor_fingerprint(torch.ones(2))


def test_plain_gives_json_data() -> None:
    data = plain({1: (Settings(), Path("a/b")), "x": [None, 1.5]})
    expected = {"count": 3, "rate": 0.5, "name": "x", "on": False, "limit": None}
    assert data == {"1": [expected, "a/b"], "x": [None, 1.5]}


@pytest.mark.parametrize("value", [torch.ones(1), {1, 2}, object(), Settings, b"x", 1j, torch.float32])
def test_plain_refuses_what_has_no_json_form(value: Any) -> None:
    with pytest.raises(TypeError, match=f"cannot express {type(value).__name__} as JSON"):
        plain({"deep": [value]})


# --- errors ----------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_sorted_choices_and_the_nearest() -> None:
    error = UnknownNameError("model", "resnet18", ["resnet-50", "convnet-3", "resnet-18"], "Any depth.")
    assert str(error) == (
        "There is no model named 'resnet18'. Did you mean 'resnet-18'? Choose one of: convnet-3, resnet-18, "
        "resnet-50. Any depth."
    )
    assert "Did you mean" not in str(UnknownNameError("model", "zzz", ["resnet-18"]))


def test_a_missing_extra_tells_how_to_install_it() -> None:
    error = MissingExtraError("pyarrow", "parquet", "Reading parquet files")
    assert str(error) == (
        "Reading parquet files needs the package 'pyarrow', which is not installed. Install it with: "
        "pip install 'softlabel[parquet]'"
    )


def test_every_error_is_a_softlabel_error() -> None:
    assert issubclass(DiskFullError, StoreError)
    for kind in (UnknownNameError, ConfigError, DataError, MissingExtraError, StoreError):
        assert issubclass(kind, SoftlabelError)


# --- nouns -----------------------------------------------------------------------------------------------------


def images(count: int = 4) -> torch.Tensor:
    return torch.zeros(count, 3, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("pixels", "targets", "message"),
    [
        (
            images().float(),
            torch.zeros(4).long(),
            "must be a uint8 tensor [N, C, H, W]. Got torch.float32 (4, 3, 16, 16)",
        ),
        (images()[0], torch.zeros(3).long(), "must be a uint8 tensor [N, C, H, W]. Got torch.uint8 (3, 16, 16)"),
        (images(), torch.zeros(3).long(), "must be int64 [4], one per image. Got torch.int64 (3,)"),
        (images(), torch.zeros(4).int(), "must be int64 [4], one per image. Got torch.int32 (4,)"),
        (images(), torch.zeros(4, 1).long(), "must be int64 [4], one per image. Got torch.int64 (4, 1)"),
    ],
)
def test_a_split_checks_its_tensors(pixels: torch.Tensor, targets: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Split(pixels, targets)
    assert message in str(caught.value)


def test_a_split_counts_and_copies() -> None:
    split = Split(images(5), torch.tensor([0, 2, 2, 0, 2]))
    assert len(split) == 5
    assert split.counts(4) == [2, 0, 3, 0]
    part = split.subset(torch.tensor([4, 0]))
    assert part.targets.tolist() == [2, 0]
    part.images.fill_(9)
    assert int(split.images.max()) == 0


def test_dataset_info_reads_back_from_json(tiny_data: Dataset) -> None:

    assert DatasetInfo.from_json(json.loads(json.dumps(plain(tiny_data.info)))) == tiny_data.info
    assert tiny_data.info.classes == 4
    assert tiny_data.info.image_shape == (3, 16, 16)


def distilled(data: Dataset) -> DistilledSet:
    first = [int((data.train.targets == target).nonzero()[0]) for target in range(data.info.classes)]
    part = data.train.subset(torch.tensor(first))
    return DistilledSet(images=part.images, targets=part.targets, info=data.info, method="random", ipc=1, seed=0)


def test_a_distilled_set_refuses_targets_that_are_no_class(tiny_data: Dataset) -> None:
    with pytest.raises(DataError, match=r"Targets must lie in 0\.\.3 for 4 classes\. Got -1\.\.2\."):
        replace(distilled(tiny_data), targets=torch.tensor([0, 1, 2, -1]))
    with pytest.raises(DataError, match=r"Got 0\.\.4\."):
        replace(distilled(tiny_data), targets=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(DataError, match="one per image"):
        replace(distilled(tiny_data), targets=torch.tensor([0]))


def test_the_digest_of_a_distilled_set_names_what_a_student_sees(tiny_data: Dataset) -> None:
    made = distilled(tiny_data)
    assert replace(made, method="other", seed=9, provenance={"a": 1}, image_bytes=7).digest == made.digest
    assert replace(made, images=made.images.flip(0)).digest != made.digest
    assert replace(made, targets=made.targets.flip(0)).digest != made.digest
    for change in (
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (1.0, 1.0, 1.0)},
        {"digest": "x"},
        {"class_names": tuple("dcba")},
    ):
        assert replace(made, info=replace(made.info, **change)).digest != made.digest
    assert replace(made, info=replace(made.info, name="/elsewhere", origin="moved")).digest == made.digest


def test_label_sources_are_known_by_their_shape() -> None:

    assert isinstance(HardLabels(), LabelSource)
    assert not isinstance(object(), LabelSource)


# --- text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345, "12.3 kB"), (999_500, "1 MB"), (7 * 10**15, "7e+03 TB")],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.31, "9.3 s"), (95, "1 min 35 s"), (3599, "59 min 59 s"), (7290, "2 h 1 min")]
)
def test_times_read_well(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_some_classes_of_a_data_set(tiny_data: Dataset) -> None:
    part = tiny_data.of_classes((3, 1))
    assert part.info.class_names == ("class d", "class b")
    assert part.info.digest != tiny_data.info.digest
    assert (part.info.mean, part.info.std) == (tiny_data.info.mean, tiny_data.info.std)
    for mine, whole in ((part.train, tiny_data.train), (part.test, tiny_data.test)):
        assert torch.equal(mine.images[mine.targets == 0], whole.images[whole.targets == 3])
        assert torch.equal(mine.images[mine.targets == 1], whole.images[whole.targets == 1])
        assert set(mine.targets.tolist()) == {0, 1}
    assert part.selection is None
    assert tiny_data.of_classes(range(4)).train.digest == tiny_data.train.digest


def test_weights_of_images(tiny_data: Dataset) -> None:
    split = tiny_data.train.subset(torch.arange(6))
    weights = torch.tensor([0.5, 1.5, 1.0, 0.0, 2.0, 1.0])
    weighed = replace(split, weights=weights)
    assert weighed.digest != split.digest
    assert weighed.digest != replace(split, weights=weights.flip(0)).digest
    taken = weighed.subset(torch.tensor([4, 0])).weights
    assert taken is not None
    assert taken.tolist() == [2.0, 0.5]
    label = int(split.targets[0])
    kept = weighed.of_classes([label]).weights
    assert kept is not None
    assert torch.equal(kept, weights[split.targets == label])
    for wrong in (weights.double(), weights[:5], -weights):
        with pytest.raises(DataError, match=r"Weights must be float32 \[6\], one of 0 or more per image"):
            replace(split, weights=wrong)
    made = DistilledSet(
        images=split.images, targets=split.targets, info=tiny_data.info, method="m", ipc=1, seed=0, weights=weights
    )
    assert made.split.digest == weighed.digest
    assert made.digest != replace(made, weights=None).digest
    left = made.without([label]).weights
    assert left is not None
    assert torch.equal(left, weights[split.targets != label])
