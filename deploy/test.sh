#!/bin/sh
# Makes .venv if need be and runs all tests; arguments go to pytest.
#
#   sh deploy/test.sh
#   sh deploy/test.sh tests/records -k budget
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh
exec .venv/bin/python -m pytest "$@"
