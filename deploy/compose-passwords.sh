#!/bin/sh
# Gives the roles of roles.sql the passwords that prepare.py made; PostgreSQL's image runs it once.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --username postgres --dbname broker --file /run/prepared/passwords.sql
