"""Python's state of a thread that another library made, kept from call to call: see thread_state.py."""

def keep_thread_state() -> None: ...  # until this thread ends; again is nothing.  Only for a thread of no Python's
