"""The agent: takes memory back before it is needed, from cgroups of the kernel's or of an engine, and says why.

It is a client of :mod:`uzswap.client` alone.  All that it does to a cgroup are one-shot requests to ``memory.reclaim``;
it sets no limit, so that one that is killed leaves none behind.

==========  ============================================================================
tree        the cgroups of a root, found anew each time, and what the machine says
probes      what a tree can do, found out by trying
observe     one reading of a cgroup's files
policies/   from what was seen to what is to be done, pure functions, one a file
settings    values with units, and what text they are read from
config      which cgroup has which policy with which settings: a TOML file
requests    one request under way for each cgroup, each with a deadline
lowered     limits that are lowered for a moment, and are what they were again whatever happens
budget      how much may be written to the device, kept across restarts
records     every decision, in a bounded ring on disk
explain     decisions in words
metrics     decisions as numbers, for Prometheus
outlook     what it would have to work with, for uzswap doctor
notify      the service manager
loop        puts them together
==========  ============================================================================
"""
