"""`python -m durably` is the command `durably`."""

import sys

from durably.cli.main import main

sys.exit(main())
