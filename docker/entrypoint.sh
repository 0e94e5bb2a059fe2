#!/bin/sh
# Dagster reads its database password from a variable only: take it from the secret's file, then
# become the command, so that signals reach it.
set -eu
if [ -n "${DAGSTER_POSTGRES_PASSWORD_FILE:-}" ]; then
  DAGSTER_POSTGRES_PASSWORD=$(cat "$DAGSTER_POSTGRES_PASSWORD_FILE")
  export DAGSTER_POSTGRES_PASSWORD
fi
exec "$@"
