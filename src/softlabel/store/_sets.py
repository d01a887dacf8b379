"""Distilled sets as artifacts: one image file per image in a folder per class, and a manifest.

The folders can be looked at, or read by any tool that reads class folders; the manifest holds the order,
the class names, the normalisation and how the set was made.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from softlabel.core import ConfigError, DatasetInfo, DistilledSet, StoreError, plain
from softlabel.store._artifact import new_artifact, read_artifact
from softlabel.store._images import check_storage, decode_image, encode_image, suffix


def save_distilled(distilled: DistilledSet, path: Path, storage: str = "png") -> DistilledSet:
    """Write the set to `path` and return it as a reader of the files will see it.

    With `jpeg-Q` the pixels returned are those decoded from the JPEG files: what is stored is what trains.

    Raises:
        ConfigError: an unknown storage, or images that are neither grey nor RGB.
        DiskFullError: the disk filled up.
    """
    check_storage(storage)
    if distilled.info.channels not in (1, 3):
        raise ConfigError(f"Image files need 1 or 3 channels. This set has {distilled.info.channels}.")
    if storage == "webp" and distilled.info.channels == 1:
        raise ConfigError("WebP has no grey images: store this set with --storage png.")
    entries: list[dict[str, Any]] = []
    meta: dict[str, Any] = {"storage": storage, "entries": entries, **_facts(distilled)}
    with new_artifact(path, "distilled", meta) as writer:
        for position, (image, target) in enumerate(zip(distilled.images, distilled.targets.tolist(), strict=True)):
            name = f"images/{target:05d}/{position:06d}.{suffix(storage)}"
            writer.write(name, encode_image(image, storage))
            entries.append({"file": name, "target": target})
            if distilled.weights is not None:
                entries[-1]["weight"] = float(distilled.weights[position])
    return load_distilled(path)


def load_distilled(path: Path) -> DistilledSet:
    """Read the distilled set at `path`, its files checked against the manifest.

    Raises:
        StoreError: it is missing, corrupt, or no distilled set.
    """
    artifact = read_artifact(path, "distilled")
    meta = artifact.meta
    info = DatasetInfo.from_json(meta["info"])
    if strange := sorted({entry["file"] for entry in meta["entries"]} - artifact.files.keys()):
        raise StoreError(f"The manifest of {path} names {strange[0]}, which is none of its files. Make it again.")
    images = [
        decode_image((path / entry["file"]).read_bytes(), info.channels, str(path / entry["file"]))
        for entry in meta["entries"]
    ]
    if not images:
        raise StoreError(f"{path} holds no images. Make the set again.")
    return DistilledSet(
        images=torch.stack(images),
        targets=torch.tensor([entry["target"] for entry in meta["entries"]], dtype=torch.int64),
        info=info,
        image_bytes=artifact.bytes_of("images/"),
        weights=_weights(meta["entries"]),
        **{key: meta[key] for key in ("method", "ipc", "seed", "factor", "provenance")},
    )


def _weights(entries: Sequence[Mapping[str, Any]]) -> torch.Tensor | None:
    if not all("weight" in entry for entry in entries):
        return None
    return torch.tensor([entry["weight"] for entry in entries], dtype=torch.float32)


def _facts(distilled: DistilledSet) -> dict[str, Any]:
    skip = {"images", "targets", "image_bytes", "weights"}
    return {
        field.name: plain(getattr(distilled, field.name))
        for field in dataclasses.fields(distilled)
        if field.name not in skip
    }
