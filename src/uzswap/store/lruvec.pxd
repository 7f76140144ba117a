from libc.stdint cimport int64_t

cdef enum:
    # Resident.where: on which list it is
    INACTIVE = 0
    ACTIVE = 1
    UNEVICTABLE = 2         # has to stay for all that is known
    ISOLATED = 3            # a reclaim is looking at it
    NR_LISTS = 4

cdef struct Link:
    Link *prev              # colder
    Link *next              # hotter
    void *owner

cdef struct List:
    Link end                # its next is the coldest, its prev the hottest
    int64_t length
    int64_t nbytes          # of what is on it

cdef void list_init(List *l) noexcept nogil
cdef void list_abandon(List *l) noexcept nogil
cdef void add_hottest(List *l, Link *link, int64_t nbytes) noexcept nogil
cdef void add_coldest(List *l, Link *link, int64_t nbytes) noexcept nogil
cdef void take_off(List *l, Link *link, int64_t nbytes) noexcept nogil
cdef Link *coldest(List *l) noexcept nogil
cdef bint inactive_is_low(const List *inactive, const List *active) noexcept nogil
