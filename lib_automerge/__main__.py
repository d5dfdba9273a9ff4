"""`python -m lib_automerge`."""

import sys

from lib_automerge.cli import main

if __name__ == "__main__":
    sys.exit(main())
