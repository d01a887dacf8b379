"""Which part may import which, what each part exports, and what importing it loads."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import softlabel

ROOT = Path(softlabel.__file__).parent

# A package may import only packages of a later row. Packages of one row do not know each other.
LAYERS = [
    {"cli"},
    {"recipes"},
    {"evaluation", "report"},
    {"distill", "labels", "lab"},
    {"generate"},
    {"training"},
    {"data", "models", "losses", "views"},
    {"store"},
    {"core"},
]
PACKAGES = sorted(set().union(*LAYERS))
# Files beside the packages: the version (anybody may ask for it) and `python -m softlabel`.
FREE = {"softlabel._version"}
LIGHT = (
    "plotly",
    "datasets",
    "pyarrow",
    "sklearn",
    "transformers",
    "timm",
    "torchvision",
    "ray",
    "pytorch_optimizer",
    "diffusers",
    "accelerate",
)


@dataclass(frozen=True)
class Arrow:
    """One import: the module it stands in, the line, and what it asks for."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(file: Path, root: Path) -> str:
    parts = ("softlabel", *file.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> set[str]:
    return {module_name(file, root) for file in root.rglob("*.py")}


def arrows(file: Path, root: Path) -> Iterator[Arrow]:
    """Every import of softlabel in a file, inside functions and type-checking blocks too, as full module names."""
    source = module_name(file, root)
    known = modules(root)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno} has a relative import"
            base = node.module or ""
            # `from softlabel.store import _files` asks for a module, `from softlabel.store import Store` for a name.
            names = (f"{base}.{alias.name}" for alias in node.names)
            targets = [name if name in known else base for name in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            targets = [text for text in texts if isinstance(text, str)]
        else:
            continue
        yield from (Arrow(source, node.lineno, t) for t in targets if t.split(".")[0] == "softlabel")


def level(package: str) -> int:
    return next(position for position, row in enumerate(LAYERS) if package in row)


def package_of(module: str) -> str:
    """The package below softlabel; empty for softlabel itself."""
    return module.split(".")[1] if "." in module else ""


def problems(root: Path) -> list[str]:
    """What is wrong with the imports of the softlabel under `root`."""
    found = []
    for file in sorted(root.rglob("*.py")):
        for arrow in arrows(file, root):
            own, other = package_of(arrow.source), package_of(arrow.target)
            inside = own == other
            private = any(part.startswith("_") for part in arrow.target.split(".")[1:])
            if arrow.target in FREE:
                continue
            if private and not inside:
                found.append(f"{arrow}: a private module of another package")
            elif own in {"", "__main__"}:
                continue  # softlabel/__init__.py offers names of every part
            elif other == "":
                found.append(f"{arrow}: a part imports the whole")
            elif not inside and (own not in PACKAGES or other not in PACKAGES):
                found.append(f"{arrow}: not in the table of layers")
            elif not inside and level(other) <= level(own):
                found.append(f"{arrow}: the arrow points the wrong way")
    return found


def top_level(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir() and any(path.rglob("*.py"))}


def test_every_package_has_a_layer() -> None:
    assert top_level(ROOT) == set(PACKAGES), "a package was added or removed: give it a row in LAYERS"
    assert sum(len(row) for row in LAYERS) == len(PACKAGES), "a package stands in two rows"
    loose = {path.name for path in ROOT.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "_version.py"}


def test_no_arrow_points_the_wrong_way() -> None:
    assert problems(ROOT) == []


def test_there_are_arrows_to_look_at() -> None:
    """The walk sees the imports that are known to be there."""
    seen = {(package_of(a.source), package_of(a.target)) for file in ROOT.rglob("*.py") for a in arrows(file, ROOT)}
    assert {("cli", "recipes"), ("evaluation", "distill"), ("training", "losses"), ("store", "core")} <= seen


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("core/_new.py", "from softlabel.store import Store\n", "wrong way"),
        ("losses/_new.py", "def f():\n    import softlabel.models\n", "wrong way"),
        ("distill/_new.py", "from softlabel.labels import make_labels\n", "wrong way"),
        ("evaluation/_new.py", "from softlabel.report import write_report\n", "wrong way"),
        ("report/_new.py", "from softlabel.evaluation import summarise\n", "wrong way"),
        ("training/_new.py", "from softlabel import labels\n", "wrong way"),
        ("cli/_new.py", "from softlabel.store._files import sha256\n", "private module"),
        ("cli/_new.py", "from softlabel.store import _files\n", "private module"),
        ("__init__.py", "from softlabel.core.text import human_bytes\nimport softlabel.store._files\n", "private"),
        ("store/_new.py", "import softlabel\n", "imports the whole"),
        ("interop/__init__.py", "from softlabel.core import fingerprint\n", "table of layers"),
        ("cli/_new.py", "import softlabel.interop\n", "table of layers"),
        ("views/_new.py", "import importlib\nimportlib.import_module('softlabel.training')\n", "wrong way"),
    ],
)
def test_the_guard_notices(file: str, text: str, problem: str, tmp_path: Path) -> None:
    for module in modules(ROOT):
        path = tmp_path.joinpath(*module.split(".")[1:])
        if (ROOT / path.relative_to(tmp_path)).is_dir():
            path = path / "__init__"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").touch()
    assert problems(tmp_path) == []
    new = tmp_path / file
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(text)
    found = problems(tmp_path)
    assert len(found) == 1
    assert problem in found[0]


def test_the_guard_notices_a_new_package(tmp_path: Path) -> None:
    (tmp_path / "interop").mkdir()
    (tmp_path / "interop" / "__init__.py").touch()
    assert "interop" in top_level(tmp_path) - set(PACKAGES)


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_exports(package: str) -> None:
    """`__all__` is sorted, without repeats, and everything in it is there."""
    module = importlib.import_module(f"softlabel.{package}".rstrip("."))
    names = module.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in names if not hasattr(module, name)] == []
    assert [name for name in names if name.startswith("_") and not name.startswith("__")] == []


def test_packages_are_used_by_what_they_export() -> None:
    """Nobody takes a name from a package that the package does not offer."""
    missing = []
    for file in ROOT.rglob("*.py"):
        source = module_name(file, ROOT)
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("softlabel."):
                continue
            package = package_of(str(node.module))
            if str(node.module) != f"softlabel.{package}" or package not in PACKAGES:
                continue
            if package_of(source) == package:
                continue
            offered = getattr(importlib.import_module(f"softlabel.{package}"), "__all__", None)
            if offered is not None:
                missing += [f"{source}: {package}.{alias.name}" for alias in node.names if alias.name not in offered]
    assert missing == []


@pytest.mark.parametrize("module", ["softlabel", "softlabel.core", "softlabel.losses"])
def test_importing_stays_light(module: str) -> None:
    program = f"import sys, {module}; print(sorted(m for m in {LIGHT!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_files_stay_readable() -> None:
    """No file of 400 lines or more."""
    lengths = {module_name(file, ROOT): len(file.read_text().splitlines()) for file in ROOT.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length >= 400} == {}
