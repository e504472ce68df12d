"""`distill`, as it is installed: an interrupt while the program still loads is no traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point."""
    try:
        from distill.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
