"""Reading and writing the swap device, whatever the program does with its descriptors.

A number in the program's table is a descriptor of ours only as long as the program likes: daemons close all that they
find, and the next file that they open gets the number.  So everything that changes the device is done by threads that
have a table of their own, with the device in it and nothing else.  A thread that takes a request starts another one
when nobody is left to wait for the next: a write that hangs holds nobody up.

A read is done where it is asked for, because handing it over costs as much as a fast device takes.  It counts only when
the number stood for the device before and after, as then it did in between: nobody else brings it back.  Otherwise the
threads do it.

A buffered write is done when it is written out and dropped from the page cache: swap must not fill the memory that it
is to free.
"""

import cython
from cython.cimports.libc.errno import EBADF, ECHILD, EINTR, EIO, ENOSPC, errno
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import close, getpid
from cython.cimports.uzswap.core.libc_ext import (
    O_DIRECT,
    O_RDWR,
    O_WRONLY,
    munmap,
    pread,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pwrite,
    uz_change_int,
    uz_identity,
    uz_io_write,
    uz_is_still,
    uz_open_unnamed,
    uz_pin_file,
    uz_punch,
    uz_read_int,
    uz_reopen,
    uz_truncate,
    uz_write_out,
    uz_zero,
)
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_join,
    uz_own_descriptors,
    uz_thread_id,
    uz_thread_start,
)


def device_io_start(io, fd, direct):
    """0 or -errno.  The number may be closed afterwards."""
    memset(io, 0, cython.sizeof(DeviceIO))
    io.fd = fd
    io.also = -1
    io.direct = direct
    failed = uz_identity(fd, io.identity)
    if failed:
        return failed
    io.pin = uz_pin_file(fd)
    failed = device_io_begin(io)
    return failed if failed else device_io_wait(io)


def device_io_begin(io):
    """Start the first thread, and no more.  0 or -errno."""
    io.pid = getpid()
    pthread_mutex_init(cython.address(io.lock), cython.NULL)
    pthread_cond_init(cython.address(io.asked), cython.NULL)
    pthread_cond_init(cython.address(io.answered), cython.NULL)
    io.first = io.last = cython.NULL
    io.closing = io.started = io.idle = io.nr_threads = io.nr_ended = 0
    pthread_mutex_lock(cython.address(io.lock))
    failed = start_thread(io, begin)
    pthread_mutex_unlock(cython.address(io.lock))
    if failed:
        device_io_stop(io)
    return failed


def device_io_wait(io):
    """Wait until the first thread has begun.  0 or -errno: then all is stopped."""
    pthread_mutex_lock(cython.address(io.lock))
    while not io.started:
        pthread_cond_wait(cython.address(io.answered), cython.address(io.lock))
    failed: cython.int = io.started if io.started < 0 else 0
    pthread_mutex_unlock(cython.address(io.lock))
    if not failed and not io.own_table and io.pin == cython.NULL:
        failed = -EBADF
    if failed:
        device_io_stop(io)
    return failed


def device_io_hand(io):
    """Before a fork: have the descriptors in the caller's table, which is the one that a child inherits.

    0 or -errno; device_io_handed() ends it.
    """
    io.also_handed = -1
    io.handed = io.fd
    if not still_ours(io):
        io.handed = uz_reopen(io.tid, io.fd, O_RDWR | O_DIRECT if io.direct else O_RDWR)
    if io.handed < 0 or io.also < 0:
        return io.handed if io.handed < 0 else 0
    io.also_handed = io.also
    if not uz_is_still(io.also, io.also_identity):
        io.also_handed = uz_reopen(io.tid, io.also, O_WRONLY)
    return io.also_handed if io.also_handed < 0 else 0


def device_io_handed(io):
    """After the fork: what was opened for it is closed."""
    if io.handed >= 0 and io.handed != io.fd:
        close(io.handed)
    if io.also_handed >= 0 and io.also_handed != io.also:
        close(io.also_handed)
    io.handed = io.also_handed = -1


def device_io_inherit(io, also):
    """In a child, for what its parent handed over: begin again, with threads of its own.  0 or -errno."""
    io.fd = io.handed
    io.also = also
    io.directory = cython.NULL
    io.own_table = 0
    failed = uz_identity(io.fd, io.identity)
    if also >= 0 and not failed:
        failed = uz_identity(also, io.also_identity)
    if failed:
        return failed
    io.pin = uz_pin_file(io.fd)
    return device_io_begin(io)


def device_io_stop(io):
    """Wait for what was asked, and end all threads.  In a forked child there are none, and nothing is touched."""
    i: cython.int
    if io.pid != getpid():
        return
    pthread_mutex_lock(cython.address(io.lock))
    uz_change_int(cython.address(io.closing), 1)  # who trims looks at it without the lock
    pthread_cond_broadcast(cython.address(io.asked))
    pthread_mutex_unlock(cython.address(io.lock))
    for i in range(io.nr_threads):
        pthread_join(io.threads[i], cython.NULL)
    io.pid = 0
    if io.pin != cython.NULL:
        munmap(io.pin, 4096)
    pthread_cond_destroy(cython.address(io.asked))
    pthread_cond_destroy(cython.address(io.answered))
    pthread_mutex_destroy(cython.address(io.lock))


def start_thread(io, run):
    """Called with the lock.  0 or -errno."""
    failed = uz_thread_start(cython.address(io.threads[io.nr_threads]), run, io, -1)
    if not failed:
        io.nr_threads += 1
    return failed


def begin(arg):
    """The first thread: the others are started by it, or by one that it started, and so share its table."""
    io = cython.cast(cython.pointer(DeviceIO), arg)
    keep: cython.int[2]
    n: cython.int = 0
    failed: cython.int = 0
    if io.directory == cython.NULL:
        keep[0] = io.fd if io.also < 0 or io.fd < io.also else io.also
        keep[1] = io.also if io.fd < io.also else io.fd
        n = 1 if io.also < 0 else 2
    # Refused by old kernels and by some filters: then nothing is done before a look whose the number is.
    own: cython.int = uz_own_descriptors(keep, n) == 0
    if io.directory != cython.NULL:
        io.fd = uz_open_unnamed(io.directory, io.nbytes, cython.address(io.direct))
        failed = io.fd if io.fd < 0 else uz_identity(io.fd, io.identity)
        if not failed:
            io.pin = uz_pin_file(io.fd)
    pthread_mutex_lock(cython.address(io.lock))
    io.own_table = own
    io.tid = uz_thread_id()
    io.started = failed if failed else 1
    pthread_cond_broadcast(cython.address(io.answered))
    pthread_mutex_unlock(cython.address(io.lock))
    return serve(arg)


def serve(arg):
    io = cython.cast(cython.pointer(DeviceIO), arg)
    pthread_mutex_lock(cython.address(io.lock))
    while True:
        while io.first == cython.NULL and not io.closing:
            io.idle += 1
            pthread_cond_wait(cython.address(io.asked), cython.address(io.lock))
            io.idle -= 1
        r = io.first
        if r == cython.NULL:
            break
        io.first = r.next
        if not io.idle and not io.closing and io.nr_threads < MOST_IO_THREADS:
            # Refused, there is one thread fewer, and requests wait a little longer.
            start_thread(io, serve)
        pthread_mutex_unlock(cython.address(io.lock))
        error = perform(io, r)
        pthread_mutex_lock(cython.address(io.lock))
        r.error = error
        r.answered = 1
        pthread_cond_broadcast(cython.address(io.answered))
    io.nr_ended += 1
    last: cython.bint = io.nr_ended == io.nr_threads
    pthread_mutex_unlock(cython.address(io.lock))
    if last and io.own_table:
        # The kernel closes the table only after the thread was joined, and with the last descriptor goes a file's lock.
        if io.fd >= 0:
            close(io.fd)
        if io.also >= 0:
            close(io.also)
    return cython.NULL


def device_ask(io, r):
    if io.pid != getpid():
        # A fork that Python was not told of: the device is the parent's.
        r.answered = 1
        r.error = -ECHILD
        return
    pthread_mutex_lock(cython.address(io.lock))
    # Under the lock: one that asks for itself again is not answered yet.
    r.next = cython.NULL
    r.answered = 0
    if io.first == cython.NULL:
        io.first = r
    else:
        io.last.next = r
    io.last = r
    pthread_cond_signal(cython.address(io.asked))
    pthread_mutex_unlock(cython.address(io.lock))


def device_wait(io, r):
    """The answer: 0, SUBMITTED or -errno."""
    if io.pid != getpid():
        return r.error if r.answered else -ECHILD
    pthread_mutex_lock(cython.address(io.lock))
    while not r.answered:
        pthread_cond_wait(cython.address(io.answered), cython.address(io.lock))
    pthread_mutex_unlock(cython.address(io.lock))
    return r.error


def device_ask_and_wait(io, op, buf, offset, n):
    r: Request
    memset(cython.address(r), 0, cython.sizeof(Request))
    r.op = op
    r.buf = buf
    r.offset = offset
    r.n = n
    device_ask(io, cython.address(r))
    return device_wait(io, cython.address(r))


def device_settle(io, busy):
    """Wait until `busy`, which a call that was asked for clears, is 0."""
    if io.pid != getpid():
        return
    pthread_mutex_lock(cython.address(io.lock))
    while uz_read_int(busy):
        pthread_cond_wait(cython.address(io.answered), cython.address(io.lock))
    pthread_mutex_unlock(cython.address(io.lock))


def device_punch(io, offset, n):
    """0 or -errno.  For calls that were asked for: in one of the threads."""
    if not io.own_table and not still_ours(io):
        return -EBADF
    return uz_punch(io.fd, offset, n)


def perform(io, r):
    if r.op == ASK_CALL:
        r.call(r.arg)
        return 0
    if not io.own_table and not still_ours(io):
        return -EBADF
    if r.prepare != cython.NULL:
        failed = r.prepare(r.arg)
        if failed:
            return failed
    if r.op == ASK_READ:
        return read_all(io, r.buf, r.offset, r.n)
    if r.op == ASK_ZERO:
        return uz_zero(io.fd, r.offset, r.n)
    if r.op == ASK_TRUNCATE:
        return uz_truncate(io.fd, r.offset)
    if r.op == ASK_SUBMIT and uz_io_write(r.aio, r.cb, io.fd, r.buf, r.n, r.offset) == 0:
        return SUBMITTED
    return write_all(io, r.buf, r.offset, r.n)


def still_ours(io):
    """Whether the number stands for the device, in the table of the thread that asks."""
    return uz_is_still(io.fd, io.identity)


def device_read(io, buf, offset, n):
    """0 or -errno.  The block-aligned range [offset, offset + n) into an aligned buffer."""
    if still_ours(io):
        failed = read_all(io, buf, offset, n)
        if still_ours(io):
            return failed
    return device_ask_and_wait(io, ASK_READ, buf, offset, n)


def read_all(io, buf, offset, n):
    done: cython.size_t = 0
    while done < n:
        got = pread(io.fd, buf + done, n - done, offset + done)
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        if got == 0:
            return -EIO
        done += got
    return 0


def write_all(io, buf, offset, n):
    """0 or -errno, when all bytes are on the device."""
    done: cython.size_t = 0
    while done < n:
        put = pwrite(io.fd, buf + done, n - done, offset + done)
        if put < 0:
            if errno == EINTR:
                continue
            return -errno
        if put == 0:
            return -ENOSPC
        done += put
    return 0 if io.direct else uz_write_out(io.fd, offset, n)
