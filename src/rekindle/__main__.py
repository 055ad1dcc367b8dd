"""`python -m rekindle` is `rekindle`."""

import sys

from rekindle.cli.main import main

sys.exit(main())
