"""The entry point: `softlabel`, and `python -m softlabel`.

Importing torch and its company takes seconds. An interruption in that time would end in the middle of somebody's
import, as a traceback; here it ends as everywhere else.
"""

import os
import signal
import sys


def main() -> int:
    """Load the command line and run it; see `softlabel.cli.main` for the exit codes."""
    before = signal.signal(signal.SIGINT, _leave)
    from softlabel.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def _leave(*_: object) -> None:
    os.write(sys.stderr.fileno(), b"interrupted before any work\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
