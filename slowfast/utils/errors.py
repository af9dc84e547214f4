"""Mistakes of users, told in one line; every other error keeps its traceback."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# What a disk, its rights or its quota do not allow: no mistake of the program.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)


class UserError(ValueError):
    """Mistake in a setting, a file, an argument or the environment.

    The message is complete: it names file, line or key, the value found, and what is allowed or to be done.
    """


def print_error(error: Exception) -> None:
    """Write the one line of an error that needs no traceback, and which of several processes it is from."""
    rank = os.environ.get("RANK", "0")
    sys.stderr.write(f"{'' if rank == '0' else f'[process {rank}] '}error: {error}\n")


def is_environment(error: BaseException) -> bool:
    """Return whether an error is that of a full, read-only or failing disk, which its own line explains."""
    # NumPy has no number for a full disk.
    return isinstance(error, OSError) and (error.errno in _REFUSED or "requested and" in str(error))


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a command-line tool and exit with its status: 2 and one line for a :class:`UserError`, 130 if stopped."""
    try:
        status = main()
    except UserError as error:
        print_error(error)
        status = 2
    except OSError as error:
        if not is_environment(error):
            raise
        print_error(error)
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        status = 130
    sys.exit(status or 0)
