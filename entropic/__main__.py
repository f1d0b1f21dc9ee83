"""``python -m entropic``: the command line."""

import sys

from entropic.cli import main

if __name__ == "__main__":
    sys.exit(main())
