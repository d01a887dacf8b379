"""Counts, sizes and times as people read them."""


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


def human_seconds(seconds: float) -> str:
    """`9.31` -> `9.3 s`, `95` -> `1 min 35 s`, `7290` -> `2 h 1 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
