"""Named random streams.

Every random decision draws from a generator made here from a seed and a name, so that adding a decision
somewhere never changes the numbers drawn elsewhere, and a stream can be re-made at any epoch without
keeping its state. Nothing in softlabel reads torch's or numpy's global generator.
"""

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """The 63-bit seed of the stream `names` under `seed`: the head of a SHA-256 over both."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> torch.Generator:
    """A fresh CPU generator for one purpose, e.g. `stream(0, "views", epoch)`.

    Always on the CPU: the numbers drawn are then the same on every device, and views and orders are small.
    """
    return torch.Generator(device="cpu").manual_seed(stream_seed(seed, *names))
