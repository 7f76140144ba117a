"""Python's state of a thread that another library made, kept from call to call.

A callback of ctypes in such a thread makes that state, and frees it when it returns.  Each time 16 KiB are mapped and
unmapped, which interrupts the other CPUs that the process runs on.  Kept, a read of an open file of a mount takes 0.7
of the time (2 virtual CPUs, Python 3.11, 2026-11).
"""


def keep_thread_state():
    if uz_keep_thread_state():
        raise MemoryError("no memory for the state of a thread")
