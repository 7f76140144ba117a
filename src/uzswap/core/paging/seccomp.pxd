"""seccomp.h: for trap.py alone, since what is static there is state of the process."""

from libc.stdint cimport uint64_t
from uzswap.core.paging.calls cimport uz_call, uz_serve

cdef extern from "seccomp.h" nogil:
    int uz_trap(uz_serve serve)
    int uz_refuse_handlers(int number)
    void uz_arenas_forked()
    void *uz_arena_open(uint64_t nbytes, void *pager)
    void uz_arena_close(void *pager)
    void *uz_arena_at(uint64_t address)
    long uz_make(const uz_call *call, int waited)
    int uz_may_cut(int fd, int inward, int flags, int control)
    void uz_touch(const char *at)
    int uz_is_userfaultfd(int fd)
    int uz_which_are_there(uint64_t at, uint64_t pages, unsigned char *present)
