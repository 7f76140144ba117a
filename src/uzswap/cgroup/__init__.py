"""What a cgroup is.

=============  ========================================================================
tree           all cgroups: paths, creation, removal
memcg          one cgroup: settings, events, members
control_files  what it knows of its control files: that they can be opened
stat           memory.stat and its like: which keys there are
reclaim        the grammar of memory.reclaim
pressure, psi  memory.pressure: stalls, averages, triggers; and the arithmetic of it
=============  ========================================================================
"""
