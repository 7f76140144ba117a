"""The only policy: who gives up memory, how much, and in which order.

Whatever needs room asks here: a charge of a store or an array that meets ``memory.max``, ``uzswap.resident.max`` or
``memory.high``, a store over ``memory.zswap.max``, a full pool, a request.  What goes first is the same for all:

1. clean copies: compressed bytes of pages that are in memory too;
2. zswap's own coldest entries, to the device, while zswap has more than its share of a limit on both: more than what is
   resident;
3. resident memory, into zswap: of every holder of the subtree in turn, from where the last one ended, spared by
   ``memory.min``, and by ``memory.low`` while anything else is left;
4. zswap's coldest entries, to the device, whatever their share.

The share is a half, since a load from the device costs ten of zswap's.  With a quarter (arrays that compress to a half,
limit 10 MiB, 2026-11) loads from the device rise from 0.018 an access to 0.176 for 14 MiB in any order, from 0.071 to
0.102 for 20 by Zipf's law; a hot set of 4 or 5 MiB beside a stream gains, 80 to 100 % of whose reads come out of zswap
with a half, 1 % with a quarter.  One of up to 3 MiB stays with either.

A limit on resident memory alone begins and ends with 3; one on zswap alone is 4.  Which entries are the coldest, and of
which cgroup, the walk in use says (:mod:`uzswap.reclaim.walks`), for faults on arrays as well: these make room without
Python (``core.paging.make_room`` in the data plane), in the same order.

Only cgroups that have something to give are met: what a request costs does not grow with the idle ones.
"""
