"""The control plane: memory cgroups and their control files.

=============  ========================================================================
tree           all cgroups: paths, creation, removal
memcg          one cgroup: settings, events, members
files          the table of all control files, and what each one reads and takes
open_file      what a control file is: rules that hold for all of them, open files
stat           memory.stat and its like: which keys there are
reclaim        the grammar of memory.reclaim
protection     memory.min and memory.low at work
pressure, psi  memory.pressure: stalls, averages, triggers; and the arithmetic of it
=============  ========================================================================
"""
