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

    def blocks_of_arrays(self, blocks, whether_shared_or_not, copied):
        """Name the memory of arrays that others hold too, and Arrow's; return its bytes.

        What is named has a page at least, unless the value has a view of it.  When the value is to be copied, memory of
        which it has views only is somebody else's: named is what these see.
        """
        i: cython.size_t
        nbytes: cython.Py_ssize_t = 0
        all_views: dict = self.views_of()
        for i in range(self.mask + 1):
            entry = cython.address(self.table[i])
            if entry.thing == cython.NULL or not entry.flags & IS_NDARRAY:
                continue
            views = all_views.get(cython.cast(cython.size_t, entry.thing)) if all_views else None
            if entry.nbytes < DATA_BYTES and views is None:
                continue
            shared: cython.bint = self.outside(entry) > 0
            if not (shared or whether_shared_or_not or entry.thing == self.root) or not owns_memory(entry.thing):
                continue
            length: cython.Py_ssize_t = cython.cast(object, entry.thing).nbytes
            if shared and copied and views is not None and entry.edges == len(views) and self.is_array(entry):
                low, _, seen = self.part_of(entry, views)
                if seen >= DATA_BYTES:
                    blocks.append((low, seen))
                else:
                    nbytes -= seen
                nbytes += length
            elif length >= DATA_BYTES or (shared and length):
                blocks.append((data_of(entry.thing), length))
                nbytes += length
        for address, length in (self.blocks or {}).items():
            if length >= DATA_BYTES:
                blocks.append((address, length))
                nbytes += length
        return nbytes

    def is_array(self, entry):
        """Whether an entry is of an array of numbers that owns its memory."""
        return (
            entry.thing != cython.NULL
            and entry.flags & IS_NDARRAY
            and owns_memory(entry.thing)
            and not may_hold_objects(entry.thing)
        )

    def views_of(self):
        """Owner -> its views, by address; without those that see it through something else than an array."""
        found: dict = {}
        for view in self.views or ():
            if view[1] == view[2]:
                found.setdefault(view[2], []).append(view)
        return found

    def narrow(self, own, copied):
        """Let memory of which the value sees a part, and nobody else that part, weigh what the part does.

        Parameters
        ----------
        own
            Addresses of the owners of memory that is held by other values of the store, which see other parts of it.
        copied
            Whether it does not matter who else sees it.
        """
        self.spans = {}
        for owner, views in self.views_of().items():
            entry = self.entry_of(owner)
            if not self.is_array(entry):
                continue
            if owner in own:
                entry.flags |= IS_OURS
            if entry.edges != len(views) or not (copied or self.outside(entry) <= 0):
                continue
            low, high, seen = self.part_of(entry, views)
            self.spans[owner] = low, high
            entry.nbytes -= cython.cast(object, entry.thing).nbytes - seen

    def part_of(self, entry, views):
        """What views see of the memory of an array: the first byte, the one after the last, and how many bytes."""
        ends: list = [extent(cython.cast(object, self.entry_of(view[0]).thing)) for view in views]
        low = min([end[0] for end in ends])
        high = max([end[1] for end in ends])
        seen = high - low
        if len(views) == 1 and not views[0][4]:
            seen = cython.cast(object, self.entry_of(views[0][0]).thing).nbytes
        return low, high, min(seen, cython.cast(object, entry.thing).nbytes)

    def pieces(self):
        """What the value sees of memory that others hold too.

        Returns
        -------
        dict
            Address of an array that owns memory -> the references to it that are the value's, all references to it,
            and the views of it.  Without those that somebody can reach who holds something else of the value.
        """
        found: dict = {}
        for owner, views in self.views_of().items():
            entry = self.entry_of(owner)
            if self.is_array(entry) and entry.edges == len(views) and self.outside(entry) > 0:
                seen = [cython.cast(object, self.entry_of(view[0]).thing) for view in views]
                found[owner] = entry.edges, Py_REFCNT(entry.thing) - 1, [shape_of(view) for view in seen]
                del seen
                entry.flags |= IS_OURS
        if found and self.pinned()[0]:
            apart = self.refer()[2]
            if apart is None:
                return {}
            for owner, views in self.views_of().items():
                if owner in apart.parts or not apart.parts.keys().isdisjoint([view[0] for view in views]):
                    found.pop(owner, None)
        return found

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
        # Views of what is referred to come back as views of that.
        spans = {owner: span for owner, span in (self.spans or {}).items() if owner not in parts}
        nbytes -= apart.own_and_shared_bytes()
        return nbytes, data_bytes, Apart(parts, expected, views, closure, spans), apart.stuck

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


def extent(view):
    """The address of the first byte that an array sees, and of the one after the last."""
    low = high = view.__array_interface__["data"][0]
    if view.size == 0:
        return low, low
    for stride, length in zip(view.strides, view.shape, strict=True):
        if stride < 0:
            low += stride * (length - 1)
        else:
            high += stride * (length - 1)
    return low, high + view.itemsize


def shape_of(view):
    """Where the elements of an array lie: address, bytes of each, and number and distance of them, by dimension."""
    if view.size == 0:
        return extent(view)[0], 0, ()
    dimensions = [(abs(stride), length) for stride, length in zip(view.strides, view.shape, strict=True) if length > 1]
    return extent(view)[0], view.itemsize, tuple(sorted(dimensions))
