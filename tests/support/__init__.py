"""What the tests share.

=============  ==========================================================
pages          pages that compress to an exact length
states         SPEC's notation: fill an LRU, reclaim, read the statistics
faulty         a disk that fails, blocks or corrupts on command
small_disk     a disk that is really full
uffd_filter    userfaultfd calls that fail, wait, or kill their thread
child          Python in a process of its own, also as another user
zygote         many such children at the price of few
leaks, mounts  what a test may not leave behind
=============  ==========================================================
"""
