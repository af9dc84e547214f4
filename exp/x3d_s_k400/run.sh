#!/usr/bin/env bash
# Train, then test: bash run.sh [--dry-run] [KEY VALUE ...]. The same command continues an interrupted run.
here=$(dirname "${BASH_SOURCE[0]}")
exec bash "$here/../start.sh" run_net "$here" "$@"
