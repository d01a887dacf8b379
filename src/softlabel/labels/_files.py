"""Fixed labels as artifacts."""

from pathlib import Path

from softlabel.core import ConfigError, DistilledSet
from softlabel.labels._sources import FixedLabels
from softlabel.store import is_complete, new_artifact, read_artifact, require_same


def save_labels(labels: FixedLabels, distilled: DistilledSet, path: Path) -> None:
    """Keep one label per image; an equal artifact that is complete is left alone.

    Raises:
        StoreError: other labels stand at `path`.
    """
    if is_complete(path):
        found = read_artifact(path, "labels").meta
        require_same(
            path, "set of labels", found["fingerprint"] + found["distilled"], labels.fingerprint + distilled.digest
        )
        return
    meta = {
        "fingerprint": labels.fingerprint,
        "regime": labels.regime,
        "space": labels.space,
        "classes": list(distilled.info.class_names),
        "distilled": distilled.digest,
        "teachers": list(labels.teachers),
    }
    with new_artifact(path, "labels", meta) as writer:
        writer.write_tensors("labels.safetensors", {labels.space: labels.table})


def load_labels(path: Path, distilled: DistilledSet) -> FixedLabels:
    """The labels at `path`, for exactly these images.

    Raises:
        StoreError: no labels there, or a corrupt file.
        ConfigError: they belong to other images, disagree with them in number or classes, or are not finite.
    """
    artifact = read_artifact(path, "labels")
    if artifact.meta["distilled"] != distilled.digest:
        raise ConfigError(
            f"The labels at {path} were made for another distilled set ({artifact.meta['distilled']}, not "
            f"{distilled.digest}). Make labels for this one with: softlabel label"
        )
    space = artifact.meta["space"]
    table = artifact.tensors("labels.safetensors").get(space)
    if space not in ("logits", "probabilities") or table is None or table.ndim != 2:
        raise ConfigError(f"The labels at {path} are neither logits nor probabilities [N, classes]. Make them again.")
    if table.shape != (len(distilled), distilled.info.classes):
        raise ConfigError(
            f"The labels at {path} are for {table.shape[0]} images and {table.shape[1]} classes; the distilled set has "
            f"{len(distilled)} and {distilled.info.classes}. Give the labels that were made for it."
        )
    if not bool(table.isfinite().all()):
        raise ConfigError(f"The labels at {path} hold entries that are NaN or infinite. Make them again.")
    return FixedLabels(table.clone(), tuple(artifact.meta["teachers"]), space=space)
