"""Starts the web service in the guest, with as little before it as possible.

Python runs with -I -S: no site, no environment. So the one folder with all packages is named here, after the standard
library's, since most of what is imported comes from there.
"""

import gc
import sys

sys.path.append("/opt/luban")

# Collecting while only imports run finds nothing and costs a tenth of the start.
gc.disable()
from luban_app.server import main  # noqa: E402 - only now it can be found

gc.enable()
main()
