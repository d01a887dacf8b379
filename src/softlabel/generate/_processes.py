"""One process or several: under `accelerate launch` each has a part of every batch, and gradients are averaged."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from softlabel.core import ConfigError
from softlabel.models import optional_package


@dataclass(frozen=True)
class Processes:
    """The processes that train together.

    Attributes:
        rank, count: which of how many this is.
        accelerator: accelerate's, where there are several.
    """

    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and draws progress."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """The examples of a batch that this process has.

        Raises:
            ConfigError: they cannot be shared evenly.
        """
        if batch % self.count:
            raise ConfigError(
                f"A batch of {batch} cannot be shared evenly by {self.count} processes. Choose a multiple of them."
            )
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes."""
        return network if self.accelerator is None else self.accelerator.prepare(network)

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        if self.accelerator is None:
            return value
        own = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(own, reduction="mean"))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def launched(device: str) -> Processes:
    """The processes that `accelerate launch` (or torchrun) started; this one alone when nothing did.

    Raises:
        MissingExtraError: several were started, and accelerate is not installed.
        ConfigError: accelerate is configured to share more than the batches.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    accelerate = optional_package("accelerate", "generate", "of several processes")
    # Precision is --precision's: a configuration of accelerate's own would change numbers behind its back.
    accelerator = accelerate.Accelerator(cpu=device == "cpu", mixed_precision="no")
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("MULTI_CPU", "MULTI_GPU"):
        raise ConfigError(
            f"Processes share batches alone here, and accelerate is configured for {kind}. Launch with torchrun, or "
            f"with accelerate launch --multi_gpu and no other configuration."
        )
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator)
