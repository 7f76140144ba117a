"""Pages of arrays: faults, eviction, reading ahead."""
