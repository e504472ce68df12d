"""`distill`, as it is installed: an interrupt while the program still loads is no traceback."""

from __future__ import annotations

import sys

from distill.errors import PlatformError, require_supported_platform


def main() -> None:
    """The entry point."""
    try:
        require_supported_platform()
        from distill.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except PlatformError as error:
        sys.exit(f"error: {error}")
    run()


if __name__ == "__main__":
    main()
