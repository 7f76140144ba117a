"""What stands for the value of one key."""

from typing import Any, Final

from uzswap.store.packing import Packed

NOTHING: Final[Any]

class Slot:
    """The value of one key: where it is."""

    @property
    def packed(self) -> Packed | None:
        """Its chunks; None while it is resident."""
