"""Counts, sizes and times as people read them."""

import re

from softlabel.core.errors import ConfigError


def count_of(count: int, noun: str) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def human_bytes(count: int) -> str:
    """`12345` -> `12.3 kB`, in decimal units."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def parse_bytes(text: str) -> int:
    """`2MB` -> 2000000, `300 kB` -> 300000, `4096` -> 4096; decimal units, in any case.

    Raises:
        ConfigError: not a number above 0 with one of the units B, kB, MB, GB and TB, or none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)b?\s*", text.lower())
    count = round(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if count < 1:
        raise ConfigError(f"A number of bytes is written like 2MB, 300kB or 4096. Got {text!r} instead.")
    return count


def human_seconds(seconds: float) -> str:
    """`9.31` -> `9.3 s`, `95` -> `1 min 35 s`, `7290` -> `2 h 1 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
