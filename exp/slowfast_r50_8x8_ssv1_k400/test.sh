#!/usr/bin/env bash
# Test the trained network over all views: bash test.sh [--dry-run] [KEY VALUE ...].
here=$(dirname "${BASH_SOURCE[0]}")
exec bash "$here/../start.sh" test_net "$here" "$@"
