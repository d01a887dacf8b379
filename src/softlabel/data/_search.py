"""Where data sets are looked for, and what was found there."""

import os
from dataclasses import dataclass
from pathlib import Path

from softlabel.core import DataError
from softlabel.data._known import KNOWN, Known
from softlabel.data._raw import Source

DATA_VARIABLE = "SOFTLABEL_DATA"
CACHE_VARIABLE = "SOFTLABEL_CACHE"
# Debian's data set packages install here.
SYSTEM_FOLDERS = (Path("/usr/local/share/datasets"), Path("/usr/share/datasets"))


@dataclass(frozen=True, kw_only=True)
class FoundDataset:
    """One line of `softlabel ls datasets`.

    Attributes:
        name: as `load_dataset` takes it.
        path: where it is; None when it is not there, or ships inside a package.
        status: what was found, in words.
        note: what to do when it is missing, or what is wrong with a copy that was passed over.
    """

    name: str
    path: Path | None
    status: str
    note: str = ""


def cache_root() -> Path | None:
    """`$SOFTLABEL_CACHE`, or softlabel's folder in the user's cache; None when the user has no home folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "softlabel"
    try:
        return Path.home() / ".cache" / "softlabel"
    except RuntimeError:
        return None


def data_folder() -> Path | None:
    """Where `fetch_dataset` puts data sets: `data` in the cache."""
    root = cache_root()
    return None if root is None else root / "data"


def search_path() -> list[Path]:
    """The folders in which data sets are looked for, first to last.

    The entries of `$SOFTLABEL_DATA` (separated like `$PATH`), the user's cache, the system's folders. A data
    set is an entry's sub-folder of its name, or the entry itself when that has the name.
    """
    entries = [Path(entry).expanduser() for entry in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if entry]
    own = data_folder()
    return [*entries, *([own] if own else []), *SYSTEM_FOLDERS]


def find_source(known: Known) -> Source:
    """The first readable copy of a known data set on the search path.

    Raises:
        DataError: there is none; the message lists the places, what is wrong with copies that were passed over,
            and what to do.
    """
    source, problems = _look(known)
    if source is not None:
        return source
    places = "; ".join(f"{entry}{'' if entry.is_dir() else ' (no such folder)'}" for entry in search_path())
    passed = "".join(f" Passed over: {problem}" for problem in problems)
    raise DataError(
        f"{known.title} was not found. Looked for {' or '.join(known.places)} in: {places}.{passed} {known.advice}"
    )


def find_datasets() -> list[FoundDataset]:
    """What is there for every known name. Lists folders only; no large file is opened."""
    digits = FoundDataset(name="digits", path=None, status="ships with scikit-learn, 8x8 grey digits")
    return [digits, *(_found(known) for known in KNOWN.values())]


def _found(known: Known) -> FoundDataset:
    source, problems = _look(known)
    note = " ".join(problems)
    if source is None:
        return FoundDataset(name=known.name, path=None, status="not found", note=f"{note} {known.advice}".strip())
    return FoundDataset(name=known.name, path=source.path, status=f"found: {source.kind}", note=note)


def _look(known: Known) -> tuple[Source | None, list[str]]:
    problems: list[str] = []
    for place in _places(known):
        try:
            source = known.source_at(place)
        except DataError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{place} cannot be read ({error}).")
        else:
            if source is not None:
                return source, problems
    return None, problems


def _places(known: Known) -> list[Path]:
    places: list[Path] = []
    for entry in search_path():
        places.extend(entry / name for name in (*known.places, *known.refused))
        if entry.name in known.places:
            places.append(entry)
    return [place for place in places if os.path.exists(place)]
