"""What the walk over a value says of it: its bytes, who holds what of it, and what it has to refer to when it goes."""

import cython
from cython.cimports.cpython.object import PyObject

from uzswap.store.sharing import Apart

#: What is held outside, and referred to by a value that is out, is charged when it is more than a page and an eighth of
#: what the value frees: below that it is little, should its holder let go.
LITTLE_BYTES = cython.declare(cython.Py_ssize_t, 4096)
LITTLE_PART = cython.declare(cython.Py_ssize_t, 8)
#: Bytes: what leads to more is no part of a value, but the program.
MOST_BYTES = cython.declare(cython.Py_ssize_t, 64 << 20)

NO_VIEWS: set = set()


class Survey(Walk):
    """A walk that is over, and what follows from it."""

    def estimated_bytes(self):
        """What the value occupies, but for what is small and shared and can't change: literals."""
        i: cython.size_t
        nbytes = self.alone_bytes
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and (
                entry.nbytes >= DATA_BYTES
                or not entry.flags & SHAREABLE
                or entry.thing == self.root
                or self.outside(entry) <= 0
            ):
                nbytes += entry.nbytes
        return nbytes

    def blocks_of_arrays(self, blocks, whether_shared_or_not):
        """Name the memory of arrays, from a page on, that others hold too, and Arrow's; return its bytes."""
        i: cython.size_t
        nbytes: cython.Py_ssize_t = 0
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing == cython.NULL or not entry.flags & IS_NDARRAY or entry.nbytes < DATA_BYTES:
                continue
            if whether_shared_or_not or entry.thing == self.root or self.outside(entry) > 0:
                if has_no_base(entry.thing) and owns_data(entry.thing):
                    length: cython.Py_ssize_t = cython.cast(object, entry.thing).nbytes
                    if length >= DATA_BYTES:
                        blocks.append((data_of(entry.thing), length))
                        nbytes += length
        for address, length in (self.blocks or {}).items():
            if length >= DATA_BYTES:
                blocks.append((address, length))
                nbytes += length
        return nbytes

    def plain_bytes(self):
        """Bytes of a value of which others hold nothing but small constants, as most do; -1 of any other."""
        i: cython.size_t
        nbytes = self.alone_bytes
        if self.stuck or self.views is not None or self.weakly_held is not None:
            return -1
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing == cython.NULL:
                continue
            if self.outside(entry) <= 0:
                nbytes += entry.nbytes
            elif not entry.flags & IS_ATOM or entry.nbytes >= DATA_BYTES or entry.thing == self.root:
                return -1
        return nbytes

    def pinned(self):
        """Whether somebody outside holds the value or something in it that can change, and what, if it is an object."""
        i: cython.size_t
        if self.root != cython.NULL:
            entry = self.find(self.root)
            if entry.thing != cython.NULL and self.outside(entry) > 0:
                return True, cython.cast(object, self.root)
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and not entry.flags & SHAREABLE and self.outside(entry) > 0:
                return True, cython.cast(object, entry.thing)
        return self.shares_memory(), None

    def entry_of(self, address):
        """The entry of an object by its address; a free one for those that have one reference."""
        number: cython.size_t = address
        return self.find(cython.cast(cython.pointer(PyObject), cython.cast(cython.p_void, number)))

    def is_shared(self, address):
        """Whether somebody outside holds an object, given by its address, that can change."""
        entry = self.entry_of(address)
        return entry.thing != cython.NULL and not entry.flags & SHAREABLE and self.outside(entry) > 0

    def is_seen_twice(self, view):
        """Whether memory is seen by two arrays of the value, or by one array in two places."""
        # A view that came alone keeps its base to itself; a base with a second reference is changed by both.
        if view[4]:
            return True
        for address in view[1:3]:
            entry = self.entry_of(address)
            if entry.thing != cython.NULL and entry.edges > 1 and not entry.flags & IS_ATOM:
                return True
        return False

    def shares_memory(self):
        """Whether an array shares memory with somebody outside, or somebody outside has a weak reference."""
        if self.weakly_held is not None and self.known_weakly():
            return True
        if self.views is not None:
            for view in self.views:
                if not view[3] or self.is_shared(view[1]) or self.is_shared(view[2]):
                    return True
        return False

    def known_weakly(self):
        """Addresses of the objects of which somebody outside has a weak reference that eviction would break."""
        weak = self.weak or {}
        found: set = set()
        for key, count in self.weakly_held.items():
            entry = self.entry_of(key)
            if weak.get(key, 0) < count and not (entry.flags & SHAREABLE and self.outside(entry) > 0):
                found.add(key)
        return found

    def own_bytes(self):
        """Bytes of what nobody outside holds directly."""
        i: cython.size_t
        nbytes = self.alone_bytes
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and self.outside(entry) <= 0:
                nbytes += entry.nbytes
        return nbytes

    def within_shared(self):
        """Two numbers: bytes reached only through what is shared, -1 when some can change; and bytes of shared data."""
        i: cython.size_t
        data_bytes: cython.Py_ssize_t = 0
        inside: Walk = None
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing == cython.NULL or self.outside(entry) <= 0:
                continue
            if entry.nbytes >= DATA_BYTES:
                data_bytes += entry.nbytes
            if entry.flags & FOLLOWED and inside is None:
                inside = Walk(None, False)
        if inside is None:
            return 0, data_bytes
        inside.checked = True
        inside.deferred = []
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and self.outside(entry) > 0:
                seed = inside.add(entry.thing)
                seed.nbytes = 0
                seed.flags = entry.flags
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and self.outside(entry) > 0 and entry.flags & FOLLOWED:
                inside.enter(entry.thing, entry.flags)
        # Values come second, because tuples lead to more of them.  What is inside a value is its own business.
        inside.walk()
        inside.checked = False
        while inside.deferred:
            thing = inside.deferred.pop()
            op = cython.cast(cython.pointer(PyObject), thing)
            inside.follow(op, inside.learn(Py_TYPE(op))[0].flags)
            inside.walk()
        if inside.changeable:
            return -1, data_bytes
        nbytes = inside.own_and_shared_bytes()
        return nbytes, data_bytes + (nbytes if nbytes >= DATA_BYTES else 0)

    def seeds(self):
        """Addresses of what is in the value and outside: all that is held there but atoms; views of memory there."""
        i: cython.size_t
        found: set = set()
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and not entry.flags & IS_ATOM and self.outside(entry) > 0:
                found.add(cython.cast(cython.size_t, entry.thing))
        if self.weakly_held is not None:
            found |= self.known_weakly()
        for view in self.views or ():
            if not view[3] or self.is_shared(view[1]) or self.is_shared(view[2]):
                found.add(view[0])
        return found

    def refer(self):
        """What the value has to refer to when it goes: all that somebody outside can reach.

        Returns
        -------
        tuple
            Bytes that the value alone keeps alive, -1 when it has to stay; bytes of shared data that would be copied;
            what packing has to know; how many of the objects to refer to are stuck.
        """
        i: cython.size_t
        nbytes = self.own_bytes()
        apart = Walk(None, self.thorough)
        apart.all_of_it = True
        apart.limit = MOST_BYTES
        seeds = self.seeds()
        data_bytes: cython.Py_ssize_t = 0
        # Atoms that are held outside are nobody's.
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing != cython.NULL and entry.flags & IS_ATOM and self.outside(entry) > 0:
                apart.add(entry.thing).flags = IS_ATOM
                data_bytes += entry.nbytes if entry.nbytes >= DATA_BYTES else 0
        for address in seeds:
            entry = self.entry_of(address)
            if entry.thing == self.root:
                return -1, 0, None, 0
            seed = apart.add(entry.thing)
            seed.flags = entry.flags
            # What is held outside does not count as the value's own.
            seed.nbytes = entry.nbytes if self.outside(entry) <= 0 else 0
            apart.limit -= entry.nbytes
            if entry.flags & STUCK:
                apart.stuck += 1
        for view in self.views or ():
            if view[0] in seeds and not view[3]:
                apart.limit -= cython.cast(object, self.entry_of(view[0]).thing).nbytes
        for address in seeds:
            entry = self.entry_of(address)
            if entry.flags & FOLLOWED:
                apart.enter(entry.thing, entry.flags)
        apart.walk()
        if apart.limit < 0 or apart.find(self.root).thing != cython.NULL:
            return -1, 0, None, 0
        parts: dict = {}
        expected: dict = {}
        blocks: list = []
        kept: cython.Py_ssize_t = MOST_BYTES - apart.limit
        counted: cython.bint = kept > max(LITTLE_BYTES, nbytes // LITTLE_PART)
        for i in range(apart.mask + 1):
            seed = cython.address(apart.table[i])
            if seed.thing == cython.NULL or seed.flags & IS_ATOM:
                continue
            key = cython.cast(cython.size_t, seed.thing)
            parts[key] = cython.cast(object, seed.thing)
            entry = self.find(seed.thing)
            if counted:
                if seed.flags & IS_NDARRAY and has_no_base(seed.thing) and owns_data(seed.thing):
                    # As blocks_of_arrays() names it.
                    blocks.append((data_of(seed.thing), cython.cast(object, seed.thing).nbytes))
                else:
                    blocks.append((key, seed.nbytes if seed.nbytes or entry.thing == cython.NULL else entry.nbytes))
            if not seed.flags & SHAREABLE and entry.thing != cython.NULL and entry.edges > seed.edges:
                expected[key] = entry.edges - seed.edges
        views = self.views_within() - parts.keys()
        closure = (min(parts), kept, blocks) if blocks else None
        return nbytes - apart.own_and_shared_bytes(), data_bytes, Apart(parts, expected, views, closure), apart.stuck

    def views_within(self):
        """Addresses of the arrays that share memory with others in the value, and with nobody outside.

        Without those that are there for others only, as their base: no pickler meets them.
        """
        if self.views is None:
            return NO_VIEWS
        bases: dict = {}
        for view in self.views:
            bases[view[1]] = bases.get(view[1], 0) + 1
        return {
            view[0]
            for view in self.views
            if view[3]
            and self.is_seen_twice(view)
            and not self.is_shared(view[1])
            and not self.is_shared(view[2])
            and self.entry_of(view[0]).edges > bases.get(view[0], 0)
        }
