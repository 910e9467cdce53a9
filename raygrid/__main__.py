"""`python -m raygrid`."""

import sys

from raygrid.cli import main

sys.exit(main())
