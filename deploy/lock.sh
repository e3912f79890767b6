#!/bin/sh
# Writes the hashed locks from pyproject.toml; needs uv. Names versions and hashes, no index address:
# who installs decides where from, the hashes decide what.
#
#   sh deploy/lock.sh              # keeps what is locked, adds what is new
#   sh deploy/lock.sh --upgrade    # takes the newest of everything
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)

lock() { # lock FILE ABOUT ARGUMENT...
    file=$1 about=$2
    shift 2
    "$uv" pip compile --quiet --no-config --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-python-downloads \
        --output-file "$file" "$@" >/dev/null
    { printf '# %s\n# Made by deploy/lock.sh from pyproject.toml; do not edit.\n' "$about"; cat "$file"; } >"$file.new"
    mv "$file.new" "$file"
    echo "$file: $(grep -c '==' "$file") packages"
}

lock deploy/requirements.lock "Everything: service, broker dev, tests and checks." \
    --extra dev --extra test --no-emit-package pip pyproject.toml "$@"
lock deploy/requirements-runtime.lock "What the image holds." \
    --constraint deploy/requirements.lock pyproject.toml "$@"
grep '^setuptools==' deploy/requirements.lock | cut -d' ' -f1 |
    lock deploy/requirements-build.lock "What builds the broker's own wheel; never in the image." -
