"""What passes requests and answers between /dev/fuse and the server of a mount: see relay.py."""

class Relay:
    """Begins when it is made, and ends some time after the other end of the socket was shut down or closed.

    `device` is /dev/fuse, mounted; `end` is of a SOCK_SEQPACKET socket.  Both are the relay's from then on, and no
    descriptors of the process any more; with an OSError they stay the caller's.
    """

    def __init__(self, device: int, end: int) -> None: ...  # OSError EAGAIN without threads
    def tell(self, function: int, argument: int) -> None: ...  # C's void f(void *), when it is unmounted; 0 nobody
    def join(self) -> None: ...  # wait until the device is closed
