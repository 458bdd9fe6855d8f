"""The `mlcl` entry point: streams and signals are prepared before anything that takes time is imported."""

import os
import sys

from mlcl_cli import streams
from mlcl_cli.openmp import set_wait_policy
from mlcl_cli.signals import EXIT_CODE, Interrupted, interruptible, received


def main() -> None:
    """Runs the command line; stopped by a signal at any moment, it ends with exit code 75."""
    set_wait_policy(os.environ)
    finish = streams.prepare()
    try:
        _run()
    except SystemExit as end:
        if not end.code and (code := finish()):
            sys.exit(code)
        raise
    if code := finish():
        sys.exit(code)


def _run() -> None:
    try:
        with interruptible():
            from mlcl_cli.cli.app import main as run

            run()
    except Interrupted as stopped:
        streams.write_error(str(stopped), below=True)
        sys.exit(EXIT_CODE)
    except SystemExit:
        if received():  # click, too, has an opinion on what Ctrl-C exits with
            sys.exit(EXIT_CODE)
        raise


if __name__ == "__main__":
    main()
