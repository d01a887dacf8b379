"""Classifiers of transformers: from a folder, from the cache, from the hub only when nothing else has them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import ConfigError, MissingExtraError
from softlabel.models import Bridged, build_model, check_model, model_facts

transformers = pytest.importorskip("transformers")

CIFAR = (3, 32, 32)
TINY = {"patch_size": 4, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 24}


def vit_folder(folder: Path, **settings: Any) -> Path:
    """A folder with the config.json of a tiny ViT, whose settings are written as they are."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **TINY, **settings}))
    return folder


class Hub:
    """Stands in for `AutoConfig.from_pretrained`: notes what it is asked, and knows one name."""

    def __init__(self, cached: bool) -> None:
        self.cached = cached
        self.asked: list[tuple[str, bool, str | None]] = []

    def __call__(
        self, name: str, *, local_files_only: bool, trust_remote_code: bool, revision: str | None = None
    ) -> Any:
        assert trust_remote_code is False
        self.asked.append((name, local_files_only, revision))
        if name != "lab/tiny-vit" or (local_files_only and not self.cached):
            raise OSError("not found\nand more lines")
        return transformers.ViTConfig(**TINY)


# --- what is built ---------------------------------------------------------------------------------------------


def test_the_data_decide_classes_channels_and_size(tmp_path: Path) -> None:
    model = build_model(f"hf:{vit_folder(tmp_path)}", image_shape=(1, 16, 24), classes=5, seed=0)
    assert isinstance(model, Bridged)
    config: Any = model.network.config
    assert (config.num_labels, config.num_channels, tuple(config.image_size)) == (5, 1, (16, 24))
    assert (config.patch_size, config.hidden_size) == (4, 12)
    assert model.feature_size == 12


def test_settings_that_would_change_what_a_fresh_model_is_are_overruled(tmp_path: Path) -> None:
    plain = build_model(f"hf:{vit_folder(tmp_path / 'a')}", image_shape=CIFAR, classes=5, seed=0).eval()
    folder = vit_folder(tmp_path / "b", torch_dtype="float16", return_dict=False, num_labels=1000)
    other = build_model(f"hf:{folder}", image_shape=CIFAR, classes=5, seed=0).eval()
    images = torch.randn(2, *CIFAR)
    assert torch.equal(plain(images), other(images))


def test_a_saved_form_for_distillation_becomes_the_plain_one(tmp_path: Path) -> None:
    transformers.DeiTConfig(**TINY, architectures=["DeiTForImageClassificationWithTeacher"]).save_pretrained(tmp_path)
    model = build_model(f"hf:{tmp_path}", image_shape=CIFAR, classes=5, seed=0)
    assert isinstance(model, Bridged)
    assert type(model.network).__name__ == "DeiTForImageClassification"


def test_attention_is_the_form_that_is_the_same_on_every_run(tmp_path: Path) -> None:
    model = build_model(f"hf:{vit_folder(tmp_path)}", image_shape=CIFAR, classes=5, seed=0)
    assert model.network.config._attn_implementation == "eager"


def test_one_folder_in_two_builds_is_read_as_it_is_on_disk(tmp_path: Path) -> None:
    """The data's settings must not leak from one build into the next."""
    folder = vit_folder(tmp_path)
    before = (folder / "config.json").read_bytes()
    sizes = [
        build_model(f"hf:{folder}", image_shape=shape, classes=3, seed=0).network.config.num_channels
        for shape in ((1, 16, 16), CIFAR, (1, 16, 16))
    ]
    assert sizes == [1, 3, 1]
    assert (folder / "config.json").read_bytes() == before
    assert os.listdir(folder) == ["config.json"]


def test_names_may_hold_what_options_are_made_of(tmp_path: Path) -> None:
    folder = vit_folder(tmp_path / "a:b,c=d")
    assert build_model(f"hf:{folder}", image_shape=CIFAR, classes=3, seed=0)(torch.randn(2, *CIFAR)).shape == (2, 3)


# --- identity --------------------------------------------------------------------------------------------------


def test_the_facts_follow_the_configuration_not_its_place(tmp_path: Path) -> None:
    first, again, other = (
        model_facts(f"hf:{vit_folder(tmp_path / name, hidden_size=size)}")
        for name, size in (("a", 12), ("b", 12), ("c", 24))
    )
    assert first == again
    assert first["config"] != other["config"]
    assert first["transformers"] == transformers.__version__


# --- the network -----------------------------------------------------------------------------------------------


def test_a_cached_configuration_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(cached=True)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", hub)
    check_model("hf:lab/tiny-vit")
    build_model("hf:lab/tiny-vit", image_shape=CIFAR, classes=3, seed=0)
    assert {local for _, local, _ in hub.asked} == {True}


def test_checking_a_name_never_asks_the_hub_and_building_does(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(cached=False)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", hub)
    check_model("hf:lab/tiny-vit@v1.0")
    assert hub.asked == [("lab/tiny-vit", True, "v1.0")]
    build_model("hf:lab/tiny-vit@v1.0", image_shape=CIFAR, classes=3, seed=0)
    assert hub.asked[-1] == ("lab/tiny-vit", False, "v1.0")


def test_a_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vit_folder(tmp_path / "lab-vit")
    monkeypatch.chdir(tmp_path)
    build_model("hf:lab-vit", image_shape=CIFAR, classes=3, seed=0)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", Hub(cached=True))
    check_model("hf:lab/tiny-vit")


def test_a_name_that_nobody_has_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", Hub(cached=False))
    with pytest.raises(ConfigError) as caught:
        build_model("hf:lab/vit-tiny", image_shape=CIFAR, classes=3, seed=0)
    assert str(caught.value) == (
        "Cannot read the configuration of the model 'hf:lab/vit-tiny' (OSError: not found). Check the name, the "
        "revision and the network, or save its config.json in a folder and write hf:FOLDER."
    )


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "not a name", "../x", "~/no-such-folder"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no such folder, and it is no name of the hub"):
        check_model(f"hf:{name}")


@pytest.mark.parametrize("spec", ["hf:", "hf: "])
def test_a_name_is_needed(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model(spec)
    assert str(caught.value) == f"The model {spec!r} has no name: write hf:NAME."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "config.json"),
        ("{", "OSError"),
        ('{"model_type": "nonsense"}', "ValueError"),
        ('{"model_type": "vit", "torch_dtype": "nonsense"}', "AttributeError"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "code.Own"}}', "ValueError"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        check_model(f"hf:{tmp_path}")
    assert str(caught.value).startswith(f"Cannot read the configuration of the model 'hf:{tmp_path}' (")
    assert reason in str(caught.value)
    assert str(caught.value).endswith(
        "Expected a folder with the config.json of an image classifier that transformers knows."
    )


def test_a_setting_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    """By the configuration or, in older versions of transformers, by the model."""
    with pytest.raises(ConfigError, match=r"he model 'hf:.*Error"):
        build_model(f"hf:{vit_folder(tmp_path, hidden_size='big')}", image_shape=CIFAR, classes=3, seed=0)


def test_a_model_for_text_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be built for images .*Unrecognized configuration class"):
        build_model(f"hf:{tmp_path}", image_shape=CIFAR, classes=3, seed=0)


def test_an_image_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(f"hf:{vit_folder(tmp_path)}", image_shape=(3, 3, 3), classes=2, seed=0)
    assert f"The model 'hf:{tmp_path}' cannot be built for images of 3 channels and 3x3 px (" in str(caught.value)
    assert "Choose another model, or other images with --image-size or --channels." in str(caught.value)


def test_transformers_is_asked_for_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError) as caught:
        check_model("hf:lab/tiny-vit")
    assert str(caught.value) == (
        "The model 'hf:lab/tiny-vit' needs the package 'transformers', which is not installed. "
        "Install it with: pip install 'softlabel[hf]'"
    )
