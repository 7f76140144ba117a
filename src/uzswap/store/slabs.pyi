"""Memory for objects that are small, many and long-lived."""

def slab_bytes() -> int:
    """Return the bytes that slabs occupy."""
