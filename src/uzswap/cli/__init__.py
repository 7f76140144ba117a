"""The ``uzswap`` command."""
