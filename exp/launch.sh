#!/usr/bin/env bash
# Start a tool on all processes of this node: bash exp/launch.sh tools/run_net.py --cfg FILE [KEY VALUE ...]
#
#   NPROC_PER_NODE   processes on this node; default: one per visible GPU, one without GPUs
#   NNODES           nodes, default 1; start this script once on each of them, with
#   NODE_RANK        number of this node, from 0
#   MASTER_ADDR      address of node 0, default 127.0.0.1
#   MASTER_PORT      a free port on node 0, default 29500; one node alone chooses its own
#   MAX_RESTARTS     times that all processes are started again, from the last checkpoint, after one died; default 0
#
# Under SLURM, srun starts it and says all of this: with several tasks per node every task is one process,
# with one task per node the task starts NPROC_PER_NODE of them. See docs/distributed.md.
set -euo pipefail

if [ -z "${PY:-}" ]; then
    source "$(dirname "${BASH_SOURCE[0]}")/../tools/setup_env.sh" || exit 1
fi

# Every last command is an exec: the signals of a scheduler reach the tool, not a shell that waits for it.
if [ -n "${SLURM_STEP_ID:-}" ]; then
    if [ "$SLURM_STEP_NUM_TASKS" -gt "$SLURM_STEP_NUM_NODES" ]; then
        exec "$PY" "$@" # which reads its rank from SLURM's variables
    fi
    NNODES=$SLURM_STEP_NUM_NODES NODE_RANK=$SLURM_NODEID
    if [ -z "${MASTER_ADDR:-}" ] && [ "$NNODES" -gt 1 ]; then # a container may have no scontrol
        hosts=$(scontrol show hostnames "$SLURM_STEP_NODELIST") # all: head would end scontrol, and pipefail this script
        MASTER_ADDR=${hosts%%$'\n'*}
    fi
    MASTER_PORT=${MASTER_PORT:-$((10000 + (SLURM_JOB_ID + 997 * SLURM_STEP_ID) % 20000))}
fi

if [ -z "${NPROC_PER_NODE:-}" ]; then
    NPROC_PER_NODE=1
    if command -v nvidia-smi >/dev/null && gpus=$(nvidia-smi --list-gpus 2>/dev/null); then
        if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES"); fi
        NPROC_PER_NODE=$(grep -c . <<<"$gpus") || NPROC_PER_NODE=1
    fi
fi
if [ "${NNODES:-1}" = 1 ]; then
    if [ "$NPROC_PER_NODE" = 1 ] && [ "${MAX_RESTARTS:-0}" = 0 ]; then
        exec "$PY" "$@"
    fi
    # A port of its own, unless one is named: two runs on one machine do not meet.
    meeting=(--rdzv-backend=c10d --rdzv-endpoint="127.0.0.1:${MASTER_PORT:-0}" --local-addr=127.0.0.1)
else
    MASTER_PORT=${MASTER_PORT:-29500}
    meeting=(--nnodes="$NNODES" --node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}"
        --master-port="$MASTER_PORT")
fi
if [ -n "${MASTER_PORT:-}" ] && [ "${NODE_RANK:-0}" = 0 ] &&
    ! "$PY" -c 'import socket, sys; socket.create_server(("", int(sys.argv[1])))' "$MASTER_PORT" 2>/dev/null; then
    echo "error: port $MASTER_PORT is in use on this node; choose another MASTER_PORT on every node" >&2
    exit 2
fi
exec "$PY" -m torch.distributed.run "${meeting[@]}" --nproc-per-node="$NPROC_PER_NODE" \
    --max-restarts="${MAX_RESTARTS:-0}" "$@"
