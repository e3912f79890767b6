#!/bin/sh
# Makes .venv from the hashed lock; does nothing when it is already as the lock says.
#
#   sh deploy/setup.sh
#
# Needs Python 3.11 or newer; PYTHON=… picks one. Packages come from wherever pip is told to take
# them on this machine; the hashes in the lock decide what is accepted.
set -eu
cd "$(dirname "$0")/.."
lock=deploy/requirements.lock
stamp=.venv/.made-from

say() { printf 'setup: %s\n' "$*" >&2; }

# The folder is part of the stamp: scripts in a copied .venv would start the original's Python.
wanted="$(pwd) $(cat "$lock" pyproject.toml deploy/setup.sh | cksum)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c ''; then
    exit 0
fi

python=
for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11 sh $0"
    exit 1
fi

# A .venv of this folder is brought up to the lock; anything else under that name is made anew.
if ! [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)' 2>/dev/null)" = "$(pwd)/.venv" ]; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -c 'import ensurepip' 2>/dev/null && [ "${BROKER_SETUP_APT:-}" = 1 ]; then
        say "installing python3-venv (BROKER_SETUP_APT=1)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >&2
    fi
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv .venv
    else
        "$python" -m venv --without-pip .venv # Debian without python3-venv; another pip fills it
    fi
fi

# Sets `install` to a command that installs into .venv: its own pip, the system's, or uv.
if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    install=".venv/bin/python -m pip install --disable-pip-version-check"
elif "$python" -m pip --python .venv/bin/python --version >/dev/null 2>&1; then
    install="$python -m pip --python .venv/bin/python install --disable-pip-version-check"
elif command -v uv >/dev/null 2>&1; then
    install="uv pip install --python .venv/bin/python"
else
    rm -rf .venv
    say "this Python can make no environment: on Debian and Ubuntu, apt-get install python3-venv"
    exit 1
fi

total=$(grep -c '==' "$lock")
say "installing $total locked packages (a minute or two the first time)"
{
    # shellcheck disable=SC2086 # the command is several words by intent
    if $install --require-hashes --no-deps --only-binary :all: -r "$lock" 2>&1; then
        echo "done: installed"
    fi
} | {
    seen=0 log= result=1
    while read -r line; do
        log="$log$line
"
        case $line in
        "done: installed") result=0 ;;
        Collecting* | Processing* | "Requirement already satisfied"*)
            seen=$((seen + 1))
            [ $((seen % 15)) -ne 0 ] || say "  $seen of about $total"
            ;;
        esac
    done
    [ $result -eq 0 ] || printf '%s' "$log" >&2
    exit $result
}
say "installing the broker itself"
# shellcheck disable=SC2086
$install --quiet --no-deps --no-build-isolation -e .
printf '%s\n' "$wanted" >"$stamp"
say "ready: .venv/bin/broker --help"
