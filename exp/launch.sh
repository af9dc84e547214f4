#!/usr/bin/env bash
# Start a tool on all processes of this node: bash exp/launch.sh tools/run_net.py --cfg FILE [KEY VALUE ...]
#
#   NPROC_PER_NODE   processes on this node; default: one per visible GPU, one without GPUs
#   NNODES           nodes, default 1; start this script once on each of them, with
#   NODE_RANK        number of this node, from 0
#   MASTER_ADDR      address of node 0, default 127.0.0.1
#   MASTER_PORT      a free port on node 0, default 29500
set -euo pipefail

if [ -z "${PY:-}" ]; then
    source "$(dirname "${BASH_SOURCE[0]}")/../tools/setup_env.sh" || exit 1
fi
if [ -z "${NPROC_PER_NODE:-}" ]; then
    NPROC_PER_NODE=1
    if command -v nvidia-smi >/dev/null && gpus=$(nvidia-smi --list-gpus 2>/dev/null); then
        if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES"); fi
        NPROC_PER_NODE=$(grep -c . <<<"$gpus") || NPROC_PER_NODE=1
    fi
fi

if [ "$NPROC_PER_NODE" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
    exec "$PY" "$@"
fi
exec "$PY" -m torch.distributed.run --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --nproc-per-node="$NPROC_PER_NODE" --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${MASTER_PORT:-29500}" "$@"
