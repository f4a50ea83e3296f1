"""``python -m equipoise``: the command line where the script ``equipoise`` is not on the path."""

import sys

from equipoise.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
