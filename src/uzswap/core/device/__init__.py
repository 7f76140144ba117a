"""The swap device as segments of 1 MiB."""
