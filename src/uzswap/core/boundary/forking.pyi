"""Forks: what the hooks of :func:`os.register_at_fork` tell the data plane."""

def announce(on: bool) -> None:
    """Tell that the calling thread is about to fork by way of Python, or, with False, that it has.

    The child of such a fork has all engines of its parent; of any other it has none.
    """
