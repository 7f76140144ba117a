"""The data plane: entries, LRUs, pool, codecs, swap device.  Compiled; holds no GIL and no policy."""
