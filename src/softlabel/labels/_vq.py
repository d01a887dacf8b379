"""A small vector-quantised auto-encoder of labels (van den Oord et al. 2017), as tensors.

VQAE (2603.03808) compresses soft labels with one; its sizes and losses are not public. Ours: an encoder and a decoder
of one hidden layer each, `parts` vectors per label with a code book each, moved by exponential averages (0.99), codes
that nothing uses put where labels are; the loss is the KL divergence of the softmaxes, the squared error of the logits
over their variance, and a commitment term of 0.25.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import stream

BATCH = 512
RATE = 2e-3
DECAY = 0.99
COMMITMENT = 0.25
REVIVE_EVERY = 100
_LEAST_USE = 0.02  # of an even share: codes below are put elsewhere

Weights = Mapping[str, Tensor]


@torch.enable_grad()
def fit_vq(
    sample: Tensor, *, codes: int, parts: int, dim: int, hidden: int, steps: int, seed: int
) -> dict[str, Tensor]:
    """Train on labels [S, C]; float16 tensors by name. Those that only the encoder needs begin with `_`."""
    draws = stream(seed, "codec", "vq")
    classes = sample.shape[1]
    centre, scale = sample.mean(dim=0), sample.std().clamp_min(1e-6)
    width = parts * dim
    sizes = {"_in": (hidden, classes), "_code": (width, hidden), "out": (hidden, width), "end": (classes, hidden)}
    weights: dict[str, Tensor] = {"centre": centre, "scale": scale.view(1)}
    for name, size in sizes.items():
        bound = size[1] ** -0.5
        weights[f"{name}.weight"] = (torch.rand(size, generator=draws) * 2 - 1) * bound
        weights[f"{name}.bias"] = torch.zeros(size[0])
    learned = [tensor.requires_grad_() for name, tensor in weights.items() if "." in name]
    optimizer = torch.optim.Adam(learned, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.no_grad():
        some = _encoded(_drawn(sample, codes, draws), weights, parts)
    book = some.transpose(0, 1).clone()  # [parts, codes, dim]
    uses, sums = torch.ones(parts, codes), book.clone()
    for step in range(steps):
        batch = _drawn(sample, BATCH, draws)
        found = _encoded(batch, weights, parts)  # [B, parts, dim]
        near = _nearest(found.detach(), book)
        chosen = _looked_up(near, book)
        passed = found + (chosen - found).detach()  # straight through
        made = _decoded(passed, weights)
        loss = (
            F.kl_div(made.log_softmax(1), batch.log_softmax(1), log_target=True, reduction="batchmean")
            + F.mse_loss(made / scale, batch / scale)
            + COMMITMENT * F.mse_loss(found, chosen)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        _move(book, uses, sums, found.detach(), near)
        if (step + 1) % REVIVE_EVERY == 0 and step + REVIVE_EVERY < steps:
            _revive(book, uses, sums, found.detach(), draws)
    kept = {name: tensor.detach().half() for name, tensor in weights.items()}
    return {**kept, "book": book.half()}


def vq_codes(logits: Tensor, weights: Weights, parts: int) -> Tensor:
    """Code numbers [R, parts] of labels [R, C], int64."""
    whole = {name: tensor.float() for name, tensor in weights.items()}
    return _nearest(_encoded(logits, whole, parts), whole["book"])


def vq_decoded(codes: Tensor, weights: Weights) -> Tensor:
    """Labels [R, C], float32, of code numbers [R, parts]."""
    whole = {name: tensor.float() for name, tensor in weights.items()}
    return _decoded(_looked_up(codes, whole["book"]), whole)


def _encoded(logits: Tensor, weights: Weights, parts: int) -> Tensor:
    scaled = (logits - weights["centre"]) / weights["scale"]
    inner = F.relu(F.linear(scaled, weights["_in.weight"], weights["_in.bias"]))
    vectors: Tensor = F.linear(inner, weights["_code.weight"], weights["_code.bias"])
    return vectors.view(len(logits), parts, -1)


def _decoded(vectors: Tensor, weights: Weights) -> Tensor:
    inner = F.relu(F.linear(vectors.flatten(1), weights["out.weight"], weights["out.bias"]))
    return F.linear(inner, weights["end.weight"], weights["end.bias"]) * weights["scale"] + weights["centre"]


def _nearest(found: Tensor, book: Tensor) -> Tensor:
    """The nearest code of every part, [B, parts], of vectors [B, parts, dim] and books [parts, codes, dim]."""
    return torch.cdist(found.transpose(0, 1), book).argmin(dim=2).transpose(0, 1)


def _looked_up(codes: Tensor, book: Tensor) -> Tensor:
    return torch.stack([book[part][codes[:, part]] for part in range(len(book))], dim=1)


def _drawn(sample: Tensor, count: int, draws: torch.Generator) -> Tensor:
    return sample[torch.randint(len(sample), (count,), generator=draws)]


def _move(book: Tensor, uses: Tensor, sums: Tensor, found: Tensor, near: Tensor) -> None:
    """Every code towards the mean of what it stood for, by exponential averages; in place."""
    chosen = F.one_hot(near, book.shape[1]).float()  # [B, parts, codes]
    uses.mul_(DECAY).add_(chosen.sum(dim=0), alpha=1 - DECAY)
    sums.mul_(DECAY).add_(torch.einsum("bpc,bpd->pcd", chosen, found), alpha=1 - DECAY)
    book.copy_(sums / uses.clamp_min(1e-5).unsqueeze(2))


def _revive(book: Tensor, uses: Tensor, sums: Tensor, found: Tensor, draws: torch.Generator) -> None:
    """Codes that hardly anything uses are put on vectors of this batch; in place."""
    for part in range(len(book)):
        idle = (uses[part] < _LEAST_USE * uses[part].mean()).nonzero()[:, 0]
        if len(idle):
            placed = found[torch.randint(len(found), (len(idle),), generator=draws), part]
            book[part][idle] = placed
            uses[part][idle] = uses[part].mean()
            sums[part][idle] = placed * uses[part].mean()
