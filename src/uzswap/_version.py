"""The version of the package; pyproject.toml and ``uzswap --version`` read it here."""

__version__ = "0.1.0"
