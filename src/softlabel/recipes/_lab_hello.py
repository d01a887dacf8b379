"""The study of HeLlO's labelers: what each of their parts is worth, beside the teachers that they replace."""

from dataclasses import replace

from softlabel.core import ConfigError, UnknownNameError
from softlabel.evaluation import Labeler, SetOptions, UpdatedSet
from softlabel.labels import HelloConfig

FULL = "weak teachers"
"""Who gives the full labels: the same checkpoints that teach the labelers."""


PARTS = {
    "last": "last epoch",
    "probe": "probe",
    "weak": "+ weak teachers",
    "low-rank": "+ low-rank updates",
    "text": "+ text head",
    "own": "+ the set's own images",
    "offset": "+ an offset per image",
    "refit": "+ head refitted",
    "update": "+ image update",
}
"""The last of the teachers alone; and what is added one after another to a labeler (the order of the paper's ablation;
the set's own images, offsets and the head refitted are ours). With the name of the labeler that has it."""


def hello_labelers(config: HelloConfig, weak: tuple[int, ...], parts: tuple[str, ...] | None) -> tuple[Labeler, ...]:
    """The teachers themselves, and the labelers with every part before theirs.

    Args:
        config: of the whole labeler, trained with every part.
        weak: epochs of the trajectory; the last alone teaches the probe.
        parts: the ones to measure, of `PARTS`; None is all that this labeler and these epochs have.

    Raises:
        UnknownNameError: no such part.
        ConfigError: a part that this labeler does not have, or an update of images without a labeler.
    """
    for part in parts or ():
        if part not in PARTS:
            raise UnknownNameError("part of a labeler", part, PARTS)
    own, config = config, config.of_any
    probe, plain = replace(config, rank=0, text=False), replace(config, text=False)
    found = {"probe": Labeler(name=PARTS["probe"], stops=weak[-1:], hello=probe)}
    if len(weak) > 1:
        found["last"] = Labeler(name=PARTS["last"], stops=weak[-1:])
        found["weak"] = Labeler(name=PARTS["weak"], stops=weak, hello=probe)
    if config.rank:
        found["low-rank"] = Labeler(name=PARTS["low-rank"], stops=weak, hello=plain)
    if config.text and config.backbone.startswith("clip:"):
        found["text"] = Labeler(name=PARTS["text"], stops=weak, hello=config)
    begun = replace(config if "text" in found else plain, set_epochs=own.set_epochs)
    if own.set_epochs:
        found["own"] = Labeler(name=PARTS["own"], stops=weak, hello=begun)
    if own.offset_epochs:
        begun = replace(begun, offset_epochs=own.offset_epochs, refit=False)
        found["offset"] = Labeler(name=PARTS["offset"], stops=weak, hello=begun)
    if own.refit:
        found["refit"] = Labeler(name=PARTS["refit"], stops=weak, hello=replace(begun, refit=True))
    if parts is not None and own.of_set and not {*(("offset", "refit") if own.offset_epochs else ("own",))} & {*parts}:
        raise ConfigError(
            "set_epochs and offset_epochs are of a labeler of one set. Add own, or offset or refit, to --parts, or "
            "leave them out."
        )
    asked = [part for part in PARTS if parts is None or part in parts]
    lacking = [part for part in asked if parts and part != "update" and part not in found]
    if lacking:
        raise ConfigError(
            f"There is no part {lacking[0]!r} here: the last epoch and weak teachers take two --stops or more, "
            f"low-rank updates a rank of 1 or more, a text head a CLIP and text=true, the set's own images set_epochs "
            f"of 1 or more in --labeler, offsets offset_epochs, and a head refitted refit=true as well."
        )
    chosen = [found[part] for part in asked if part in found]
    updated = parts is not None and "update" in parts
    if not chosen or (updated and not any(one.hello for one in chosen)):
        raise ConfigError("The update of images is one for a labeler. Ask for another of --parts with it.")
    return (Labeler(name=FULL, stops=weak), *chosen)


def patches(ipc: int, labeler: str) -> tuple[SetOptions, UpdatedSet]:
    """Images of four small patches (RDED), and the same updated for a labeler: the last part of the ablation."""
    small = SetOptions(name=f"patches, IPC {ipc}", method=f"rded:factor=2,images={max(300, 4 * ipc)}", ipc=ipc)
    return small, UpdatedSet(name=f"{small.name}, + image update", of=small.name, labeler=labeler)
