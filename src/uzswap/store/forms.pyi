"""How the bytes of a value are had without making others."""

from typing import Any

def view_of(value: Any) -> tuple[int, memoryview | None]:
    """Return the form of a value and its own memory; None for what has to be pickled.

    The view is valid as long as the value: who calls keeps that.
    """

def blank_with_view(form: int, nbytes: int) -> tuple[Any, memoryview]:
    """Return a new value of such a form and its memory, which is to be filled before anybody sees the value."""
