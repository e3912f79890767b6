#!/bin/sh
# Puts the guard on the sample tables and makes its first key, as steps 4 and 5 of README.md; safe to run again.
set -eu
broker records install --yes
if ! broker keys list --guard --json | grep -q '"signing"'; then
    broker keys rotate --guard
fi
