"""torchrun, with one line instead of its tracebacks and the status of the process that failed first.

exp/launch.sh calls it with torchrun's own arguments: python tools/start_processes.py [torchrun's options] TOOL ...
"""

import logging
import signal
import sys

import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(argv: list[str]) -> int:
    """Run torchrun; return 0, the status of the first process that failed, or 128 + the number of its signal."""
    try:
        run.main(argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            sys.stderr.write(f"process {rank} ended with status {failure.exitcode}, and the others were ended\n")
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        sys.stderr.write(f"process {rank} was killed by {name}, and the others were ended\n")
        return 128 - failure.exitcode
    except SignalException as error:
        sys.stderr.write(f"ended by {error.sigval.name}, and all processes of this node with it\n")
        return 128 + error.sigval
    except dist.DistError as error:
        options = run.parse_args(argv)
        sys.stderr.write(
            f"error: node {options.node_rank} of {options.nnodes} did not meet the others at {options.master_addr}:"
            f"{options.master_port}; check that every node was started with the same NNODES, MASTER_ADDR and "
            "MASTER_PORT and with a NODE_RANK of its own, that MASTER_ADDR is node 0 and can be reached from here, "
            f"and that the port is free there and no firewall closes it: {str(error).splitlines()[0]}\n"
        )
        return 2
    return 0


if __name__ == "__main__":
    # It would repeat the errors above with their stacks.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    sys.exit(main(sys.argv[1:]))
