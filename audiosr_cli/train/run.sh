#!/usr/bin/env bash
# Train the runs of this kit, without network: ./run.sh [--minutes M] [--output DIR] [CONFIG...]; see --help.
# Python is $PYTHON or python3, and must have torch and numpy. Other missing packages are installed from wheels/ into site/.
set -eu
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$kit/site:$kit/code${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

complete() {
    "$python" - <<'END'
import importlib.util, sys
def has(name):
    try:
        return importlib.util.find_spec(name) is not None  # does not import it, which takes seconds
    except ImportError:
        return False
missing = [name for name in ("torch", "numpy") if not has(name)]
if missing:
    sys.exit(f"run.sh: {sys.executable} has no {' and no '.join(missing)}; set PYTHON to an interpreter that has them")
try:
    import rich, safetensors, soundfile, soxr, typer
    assert "OPUS" in soundfile.available_subtypes("OGG"), "libsndfile is too old for Opus"
except (ImportError, OSError, AssertionError) as error:
    print(f"run.sh: {error}", file=sys.stderr)
    sys.exit(3)
END
}

state=0
complete || state=$?
if [ "$state" = 3 ]; then
    if ! ls "$kit"/wheels/*.whl >/dev/null 2>&1; then
        echo "run.sh: there is no folder wheels beside this script; on a machine with network, run:" >&2
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        platforms="--platform manylinux_2_28_$(uname -m) --platform manylinux_2_17_$(uname -m) --platform manylinux2014_$(uname -m)"
        echo "  pip download -d wheels --no-deps --only-binary=:all: --python-version $version $platforms -r wheels.txt" >&2
        exit 1
    fi
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check --upgrade \
        --target "$kit/site" "$kit"/wheels/*.whl >&2
    state=0
    complete || state=$?
fi
[ "$state" = 0 ] || exit 1
exec "$python" -m audiosr_cli.cli.kit "$kit" "$@"  # the same process: its time counts from the start of this script
