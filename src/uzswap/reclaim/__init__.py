"""The only policy: who gives up memory, how much, and in which order.

Whatever needs room asks here: a charge of a store or an array that meets ``memory.max``, ``uzswap.resident.max`` or
``memory.high``, a store over ``memory.zswap.max``, a full pool, a request.  What goes first is the same for all:

1. clean copies: compressed bytes of pages that are in memory too;
2. zswap's own coldest entries, to the device, while zswap has more than its share of a limit on both: more than what is
   resident;
3. resident memory, into zswap: of every holder of the subtree in turn, from where the last one ended, spared by
   ``memory.min``, and by ``memory.low`` while anything else is left;
4. zswap's coldest entries, to the device, whatever their share.

A limit on resident memory alone begins and ends with 3; one on zswap alone is 4.  Which entries are the coldest, and of
which cgroup, the walk in use says (:mod:`uzswap.reclaim.walks`), for faults on arrays as well: these make room without
Python (``core.paging.make_room`` in the data plane), in the same order.

Only cgroups that have something to give are met: what a request costs does not grow with the idle ones.
"""
