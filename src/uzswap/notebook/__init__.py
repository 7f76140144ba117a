"""uzswap in a notebook: ``%load_ext uzswap``."""

try:
    import IPython  # noqa: F401
except ImportError as error:
    raise ImportError("uzswap.notebook needs IPython: pip install 'uzswap[notebook]'") from error

from uzswap.notebook.extension import Notebook, load, unload
from uzswap.notebook.idle import Idle, Stage
from uzswap.notebook.report import Report

__all__ = ["Idle", "Notebook", "Report", "Stage", "load", "unload"]
