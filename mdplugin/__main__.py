"""`python -m mdplugin` is the command `mdplugin`."""

import sys

from mdplugin.cli import main

sys.exit(main())
