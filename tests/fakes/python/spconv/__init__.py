from fake_script import act

act("import spconv")

import cumm  # noqa: E402, F401

from . import algo  # noqa: E402, F401

__version__ = "2.3.8"
