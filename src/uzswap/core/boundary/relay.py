"""Two threads between /dev/fuse and the server of a mount, with a table of descriptors of their own.

A process that uses its own mount may be killed in the middle of a request.  The kernel then waits, uninterruptibly, for
the answer of a server that is dead, until /dev/fuse is closed; and /dev/fuse is closed when the last thread that shares
the table of descriptors it is in has ended, so never, when the waiting one is among them.  Here it is in no table but
that of two threads that use no mount.

They run no Python: a garbage collection closes descriptors, and here their numbers mean nothing, or something else.
The server, which does, has the other end of a socket, on which each packet is one request or one answer.

    kernel <-> /dev/fuse <-> pass_requests, pass_answers <-> socket <-> libfuse
"""

import cython
from cython.cimports.libc.errno import EAGAIN, EINTR, ENOENT, errno
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_wait,
    pthread_join,
    uz_own_descriptors,
    uz_thread_start,
)


def line_started(line, result):
    pthread_mutex_lock(cython.address(line.lock))
    line.started = result
    pthread_cond_broadcast(cython.address(line.changed))
    pthread_mutex_unlock(cython.address(line.lock))


def pass_requests(arg):
    """The first thread: makes the table, and the second thread in it; then from the device to the server."""
    line = cython.cast(cython.pointer(Line), arg)
    keep: cython.int[2]
    keep[0] = line.device if line.device < line.end else line.end
    keep[1] = line.end if line.device < line.end else line.device
    # Refused by old kernels and by some filters; then the descriptors are everybody's, and a kill may leave a hang.
    line.alone = uz_own_descriptors(keep, 2) == 0
    failed = uz_thread_start(cython.address(line.up), pass_answers, line, -1)
    line_started(line, failed if failed else 1)
    if failed:
        return cython.NULL
    while True:
        n = read(line.device, line.request, PACKET)
        if n < 0:
            # ENOENT: the request was interrupted before it was read.
            if errno == EINTR or errno == EAGAIN or errno == ENOENT:
                continue
            break  # ENODEV: unmounted, or the connection was aborted
        sent = send(line.end, line.request, n, MSG_NOSIGNAL)
        while sent < 0 and errno == EINTR:
            sent = send(line.end, line.request, n, MSG_NOSIGNAL)
        if sent < 0:
            break  # the server reads no more
    pthread_mutex_lock(cython.address(line.lock))
    if line.told != cython.NULL:
        line.told(line.argument)
    pthread_mutex_unlock(cython.address(line.lock))
    shutdown(line.end, SHUT_WR)
    return cython.NULL


def pass_answers(arg):
    """The second thread: from the server to the device.  It ends with the server, and ends everything."""
    line = cython.cast(cython.pointer(Line), arg)
    while True:
        n = recv(line.end, line.answer, PACKET, 0)
        if n < 0 and errno == EINTR:
            continue
        if n <= 0:
            break
        # Refused when nobody waits for it any more.
        write(line.device, line.answer, n)
    pthread_cancel(line.down)
    pthread_join(line.down, cython.NULL)
    close(line.device)
    close(line.end)
    return cython.NULL


def line_start(line):
    """Start both threads.  0 or -errno."""
    failed = uz_thread_start(cython.address(line.down), pass_requests, line, -1)
    if failed:
        return failed
    pthread_mutex_lock(cython.address(line.lock))
    while not line.started:
        pthread_cond_wait(cython.address(line.changed), cython.address(line.lock))
    pthread_mutex_unlock(cython.address(line.lock))
    if line.started < 0:
        pthread_join(line.down, cython.NULL)
        return line.started
    if line.alone:
        close(line.device)
        close(line.end)
    return 0


@cython.cclass
class Relay:
    """See relay.pyi."""

    def __init__(self, device: cython.int, end: cython.int):
        if self.line != cython.NULL:
            raise ValueError("a relay begins once")
        line = cython.cast(cython.pointer(Line), calloc(1, cython.sizeof(Line)))
        if line == cython.NULL:
            raise MemoryError("no memory for a mount")
        line.device = device
        line.end = end
        pthread_mutex_init(cython.address(line.lock), cython.NULL)
        pthread_cond_init(cython.address(line.changed), cython.NULL)
        with cython.nogil:
            failed = line_start(line)
        if failed:
            pthread_cond_destroy(cython.address(line.changed))
            pthread_mutex_destroy(cython.address(line.lock))
            free(line)
            raise OSError(-failed, "no threads can be had for a mount: raise ulimit -u or pids.max, or end some")
        self.line = line

    def tell(self, function: uintptr_t, argument: uintptr_t):
        pthread_mutex_lock(cython.address(self.line.lock))
        self.line.told = cython.cast(Told, function)
        self.line.argument = cython.cast(cython.p_void, argument)
        pthread_mutex_unlock(cython.address(self.line.lock))

    def join(self):
        if not self.joined:
            self.joined = 1
            with cython.nogil:
                pthread_join(self.line.up, cython.NULL)

    def __dealloc__(self):
        # Where it was not joined, as in a forked child, the memory may be in use.
        if self.joined:
            pthread_cond_destroy(cython.address(self.line.changed))
            pthread_mutex_destroy(cython.address(self.line.lock))
            free(self.line)
