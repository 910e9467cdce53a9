"""`python -m raygrid`."""

import sys

from raygrid.cli.main import main

sys.exit(main())
