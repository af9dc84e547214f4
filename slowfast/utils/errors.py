"""Mistakes of users, told in one line; every other error keeps its traceback."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """Mistake in a setting, a file, an argument or the environment.

    The message is complete: it names file, line or key, the value found, and what is allowed or to be done.
    """


def print_error(error: Exception) -> None:
    """Write the one line of an error that needs no traceback, and which of several processes it is from."""
    rank = os.environ.get("RANK", "0")
    sys.stderr.write(f"{'' if rank == '0' else f'[process {rank}] '}error: {error}\n")


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a command-line tool and exit with its status: 2 and one line for a :class:`UserError`, 130 if stopped."""
    try:
        status = main()
    except UserError as error:
        print_error(error)
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        status = 130
    sys.exit(status or 0)
