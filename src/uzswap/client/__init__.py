"""The other side: how a program reads and writes control files, whoever has them.  Nothing here imports the engine.

==============  ========================================================================
root            the seam: a tree of control files, a cgroup in it
over_socket     an engine's, by its socket; client is the protocol underneath
directory       those of a file system, mounted or the kernel's; kernel says what an errno of it means
deadlines       interrupts writes to those that take too long
places          which of them a path means
runtime         where the engines of this user are found
mounts          mount points, and taking away what a dead process left
==============  ========================================================================
"""
