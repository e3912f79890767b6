#!/bin/sh
# Makes .venv if need be, starts everything embedded, plays the story with real clients over mutual
# TLS and ends by itself: 0 if every step went as told, non-zero otherwise.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh
exec .venv/bin/python -m broker.dev.demo "$@"
