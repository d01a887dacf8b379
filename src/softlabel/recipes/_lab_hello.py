"""The study of HeLlO's labelers: what each of their parts is worth, beside the teachers that they replace."""

from softlabel.evaluation import Labeler, SetOptions, UpdatedSet
from softlabel.labels import HelloConfig

FULL = "weak teachers"
"""Who gives the full labels: the same checkpoints that teach the labelers."""


def hello_labelers(config: HelloConfig, weak: tuple[int, ...]) -> tuple[Labeler, ...]:
    """The teachers themselves, and labelers that add one part after another (the order of the paper's ablation).

    Args:
        config: of the whole labeler, trained with every part.
        weak: epochs of the trajectory; the last alone teaches the probe.
    """
    probe = {**vars(config), "rank": 0, "text": False}
    adapted = {**vars(config), "text": False}
    found = [
        Labeler(name=FULL, stops=weak),
        Labeler(name="probe", stops=weak[-1:], hello=HelloConfig(**probe)),
        *(Labeler(name="+ weak teachers", stops=weak, hello=HelloConfig(**probe)) for _ in weak[1:2]),
        Labeler(name="+ low-rank updates", stops=weak, hello=HelloConfig(**adapted)),
    ]
    if config.text and config.backbone.startswith("clip:"):
        found.append(Labeler(name="+ text head", stops=weak, hello=config))
    return tuple(found)


def patches(ipc: int, labeler: str) -> tuple[SetOptions, UpdatedSet]:
    """Images of four small patches (RDED), and the same updated for a labeler: the last part of the ablation."""
    small = SetOptions(name=f"patches, IPC {ipc}", method=f"rded:factor=2,images={max(300, 4 * ipc)}", ipc=ipc)
    return small, UpdatedSet(name=f"{small.name}, + image update", of=small.name, labeler=labeler)
