"""How many images a model classifies correctly."""

import torch
from torch import Tensor, nn

from softlabel.core import DatasetInfo, Split
from softlabel.training._compiling import of_any_size
from softlabel.training._execution import Execution
from softlabel.training._pixels import Normaliser

EVALUATION_BATCH = 512


def measure_accuracy(model: nn.Module, split: Split, info: DatasetInfo, execution: Execution) -> float:
    """Share of `split` that `model`, put in evaluation mode, classifies correctly."""
    return int(hits_of(model, split, info, execution).sum()) / len(split)


def hits_of(model: nn.Module, split: Split, info: DatasetInfo, execution: Execution) -> Tensor:
    """Whether each image of `split` is classified correctly, bool [N]."""
    model.eval()
    normalise = Normaliser(info, execution.torch_device)
    found = []
    with torch.inference_mode(), execution.autocast(), execution.deterministic():
        for start in range(0, len(split), EVALUATION_BATCH):
            images = normalise(split.images[start : start + EVALUATION_BATCH])
            predicted = model(of_any_size(images, execution.compiled)).argmax(dim=-1).cpu()
            found.append(predicted == split.targets[start : start + EVALUATION_BATCH])
    return torch.cat(found)


def per_class_of(hits: Tensor, split: Split, classes: int) -> list[float | None]:
    right = torch.bincount(split.targets, weights=hits.double(), minlength=classes).tolist()
    return [float(own) / count if count else None for own, count in zip(right, split.counts(classes), strict=True)]
