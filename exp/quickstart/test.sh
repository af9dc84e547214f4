#!/usr/bin/env bash
# Test the trained network over all views: bash test.sh [--dry-run] [KEY VALUE ...].
here=$(dirname "${BASH_SOURCE[0]}")
export NPROC_PER_NODE=${NPROC_PER_NODE:-1}
exec bash "$here/../start.sh" test_net "$here" "$@"
