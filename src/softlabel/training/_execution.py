"""Where and how precisely to compute, settled once and recorded with every result."""

import ctypes
import importlib.util
import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

from softlabel._version import __version__
from softlabel.core import ConfigError, UnknownNameError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h

CXX_COMPILERS = ("g++", "clang++", "c++")
DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Execution:
    """A device, a precision, and whether models are compiled.

    Attributes:
        device: as torch names it.
        precision: `fp32`, or `bf16` (bfloat16 autocast; weights and optimizer stay float32).
        compiled: models are trained and tested under `torch.compile`; its numbers equal the others to rounding.
    """

    device: str
    precision: str
    compiled: bool = False

    @property
    def identity(self) -> dict[str, str | bool]:
        """What fingerprints of numbers computed here hold of it; whether models are compiled only where they are."""
        return {"device": self.device, "precision": self.precision, **({"compiled": True} if self.compiled else {})}

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Forward passes run in here."""
        with torch.autocast(self.torch_device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    @contextmanager
    def deterministic(self) -> Iterator[None]:
        """Same inputs, same bits: on CUDA no algorithm search, deterministic cuDNN kernels, and no TF32 in fp32.

        Kernels that torch itself has in no deterministic form on CUDA (the backward pass of overlapping max-pooling,
        in the ImageNet form of ResNets) remain as they are.
        """
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield


def resolve_execution(device: str = "auto", precision: str = "auto", compiled: bool = False) -> Execution:
    """Settle `auto`: CUDA when there is one; bfloat16 where the hardware computes in it.

    Raises:
        UnknownNameError: an unknown precision.
        ConfigError: a device that torch does not know or does not have, or nothing to compile with.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if device.partition(":")[0] not in DEVICES:
            raise RuntimeError("softlabel does not know it")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The device {device!r} cannot be used ({reason}). Choose auto, cpu or cuda.") from error
    if precision == "auto":
        precision = "bf16" if _has_bfloat16(device) else "fp32"
    if compiled:
        _require_compiler(device)
    return Execution(device, precision, compiled)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep freed memory for the next step instead of giving it back to the system.

    On the CPU every step allocates and frees the same large activations. By default glibc maps and unmaps each one
    (above 32 MB always), and the system zeroes every page again: a third to a half of the time of a step. The setting
    is the process's, so the command line makes it and the library does not; call it once in your own program.

    Returns:
        whether it was set: False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
    accepted = {key: mallopt(key, value) for key, value in settings.items()}
    return all(accepted.values())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch's CPU allocator has no exception class of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory")
    )


def environment(execution: Execution) -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "softlabel": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "cpu": _cpu_facts()[0],
        "threads": torch.get_num_threads(),
        "device": _device_name(execution),
        "precision": execution.precision,
        **({"compiled": True} if execution.compiled else {}),
    }


def peak_memory(execution: Execution) -> int:
    """Bytes: the most that torch allocated on CUDA, or the most that this process ever held in memory."""
    if execution.device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(execution.torch_device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _require_compiler(device: str) -> None:
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            raise ConfigError("--compile makes CUDA kernels with triton, which is not installed: pip install triton.")
    elif not any(shutil.which(name) for name in (os.environ.get("CXX"), *CXX_COMPILERS) if name):
        raise ConfigError(
            f"--compile needs a C++ compiler and found none of {', '.join(CXX_COMPILERS)} (nor $CXX). Install "
            f"one, such as g++, or leave --compile out."
        )


def _device_name(execution: Execution) -> str:
    on_cuda = execution.device.startswith("cuda")
    return torch.cuda.get_device_name(execution.torch_device) if on_cuda else execution.device


def _has_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool({"avx512_bf16", "amx_bf16"} & _cpu_facts()[1])


@cache
def _cpu_facts() -> tuple[str, frozenset[str]]:
    """Model name and feature flags; empty flags where the system does not tell."""
    model, flags = platform.processor() or platform.machine(), frozenset[str]()
    facts = Path("/proc/cpuinfo")
    if os.access(facts, os.R_OK):
        for line in facts.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = frozenset(value.split())
                break
    return model, flags
