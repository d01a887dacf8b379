#!/bin/sh
# Build the wheel, install it alone in a clean place, and use it from another folder.
# Usage: sh runs/try-wheel.sh PYTHON   (an environment that has torch and the other dependencies)
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m build --wheel --outdir "$place/dist" "$here" >"$place/build.log" 2>&1 || { cat "$place/build.log"; exit 1; }
"$python" -m pip install --quiet --no-deps --target "$place/site" "$place"/dist/*.whl
cd "$place"
export PYTHONPATH="$place/site"
"$python" - <<'PY'
import pathlib, softlabel, softlabel.report
home = pathlib.Path(softlabel.__file__).parent
assert "site" in home.parts, home
assert (home / "py.typed").exists()
assert any((home / "report" / "templates").iterdir())
print("wheel:", softlabel.__version__, "imported from a clean place")
PY
SOFTLABEL_STORE="$place/store" "$python" -m softlabel run digits-quick --epochs 5 --seeds 1 >"$place/run.log" 2>&1 \
    || { cat "$place/run.log"; exit 1; }
tail -n 1 "$place/run.log"
