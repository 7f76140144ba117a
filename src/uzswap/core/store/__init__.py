"""Entries: LRUs, pool, codecs, into the pool and onto the device and back."""
