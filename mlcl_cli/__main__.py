"""The `mlcl` entry point: streams and signals are prepared before any slow import."""

import os
import sys

from mlcl_cli import streams
from mlcl_cli.openmp import set_wait_policy
from mlcl_cli.signals import EXIT_CODE, Interrupted, interruptible, received


def main() -> None:
    """Run the command line; if a signal stops it, at any moment, exit with code 75."""
    set_wait_policy(os.environ)
    finish = streams.prepare()
    code: str | int | None = 0
    try:
        with interruptible():
            from mlcl_cli.cli.app import main as run

            run()
    except Interrupted as error:
        streams.write_error(str(error), below=True)
        code = EXIT_CODE
    except SystemExit as error:
        code = EXIT_CODE if received() else error.code  # click has its own exit code for Ctrl-C
    if code := code or finish():
        sys.exit(code)


if __name__ == "__main__":
    main()
