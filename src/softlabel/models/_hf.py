"""Image classifiers of Hugging Face transformers, built from their configuration with fresh random weights.

Only a configuration is ever read, from a local folder, the hub's cache on this machine, or, where it is in neither,
the hub; never weights, and never a repository's own code.
"""

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softlabel.core import ConfigError, fingerprint
from softlabel.models._bridge import (
    FOREIGN,
    Bridge,
    Factory,
    Shape,
    bridged,
    foreign_errors,
    optional_package,
    reason_of,
)

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w./-]+)?")


def hf_factory(name: str) -> Factory:
    """`hf:PATH`, a folder with a config.json, or `hf:NAME` or `hf:NAME@REVISION` of the hub.

    The network is not touched in here: a configuration that is neither local nor cached is fetched when a model is
    built.

    Raises:
        MissingExtraError: transformers is not installed.
        ConfigError: neither a folder nor a name, or a configuration that cannot be read.
    """
    transformers = optional_package("transformers", "hf", f"hf:{name}")
    found = _load(transformers, name, network=False)

    def build(image_shape: Shape, classes: int) -> nn.Module:
        config = deepcopy(found) if found is not None else _load(transformers, name, network=True)
        spec = f"hf:{name}"
        with foreign_errors(spec, image_shape, *_invalid_value()):
            _fit(config, image_shape, classes)
            # Eager attention: torch's fused kernels sum gradients in no fixed order on CUDA, and know no vmap on a CPU.
            network = transformers.AutoModelForImageClassification.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
            return bridged(network, spec=spec, image_shape=image_shape, classes=classes)

    return build


def _facts(name: str) -> dict[str, str]:
    transformers = optional_package("transformers", "hf", f"hf:{name}")
    settings = json.loads(_load(transformers, name, network=True).to_json_string())
    own = {key: value for key, value in settings.items() if not key.startswith("_") and key != "transformers_version"}
    return {"transformers": transformers.__version__, "config": fingerprint(own)}


def _load(transformers: Any, name: str, *, network: bool) -> Any:
    """The configuration; None where only the hub has it and `network` is False."""
    path = Path(name).expanduser()
    if path.exists():
        return _local(transformers, name, path)
    if not _HUB_NAME.fullmatch(name):
        raise ConfigError(
            f"Cannot find the model 'hf:{name}': there is no such folder, and it is no name of the hub. Write "
            f"hf:FOLDER with a folder that holds a config.json, hf:NAME, or hf:NAME@REVISION."
        )
    repository, _, revision = name.partition("@")
    options = {"revision": revision} if revision else {}
    with _config_errors(name, "Expected the configuration of an image classifier that transformers itself knows."):
        try:
            return _read(transformers, repository, local_files_only=True, **options)
        except OSError:  # how transformers says that it is not cached
            if not network:
                return None
    with _config_errors(
        name, "Check the name, the revision and the network, or save its config.json in a folder and write hf:FOLDER."
    ):
        return _read(transformers, repository, local_files_only=False, **options)


def _local(transformers: Any, name: str, path: Path) -> Any:
    with _config_errors(name, "Expected a folder with the config.json of an image classifier that transformers knows."):
        return _read(transformers, str(path), local_files_only=True)


def _read(transformers: Any, where: str, **options: Any) -> Any:
    return transformers.AutoConfig.from_pretrained(where, trust_remote_code=False, **options)


@contextmanager
def _config_errors(name: str, advice: str) -> Iterator[None]:
    foreign: tuple[type[Exception], ...] = (OSError, *FOREIGN, *_invalid_value())
    try:
        yield
    except foreign as error:
        raise ConfigError(
            f"Cannot read the configuration of the model 'hf:{name}' ({reason_of(error)}). {advice}"
        ) from error


def _fit(config: Any, image_shape: Shape, classes: int) -> None:
    """Set what the data decides, and what would make the model other than fresh, float32 and plain."""
    channels, height, width = image_shape
    config.num_labels = classes
    config.return_dict = True
    # The architecture that was saved may be one with a head for distillation; without it the plain classifier is made.
    config.architectures = []
    for part in [config, *([config.vision_config] if hasattr(config, "vision_config") else [])]:
        if hasattr(part, "num_channels"):
            part.num_channels = channels
        if hasattr(part, "image_size"):
            part.image_size = height if height == width else (height, width)


def _invalid_value() -> tuple[type[Exception], ...]:
    """What transformers raises when a setting has the wrong type; its class is in a package that it brings along."""
    return (importlib.import_module("huggingface_hub.errors").StrictDataclassError,)


HF = Bridge(hf_factory, _facts)
