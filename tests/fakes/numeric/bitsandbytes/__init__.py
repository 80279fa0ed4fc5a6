from . import functional  # noqa: F401

__version__ = "0.49.0"
