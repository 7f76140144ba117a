"""Swap devices: where written-back entries go."""

from uzswap.devices.cipher import use_encryption
from uzswap.devices.swap_file import SwapFile, open_swap

__all__ = ["SwapFile", "open_swap", "use_encryption"]
