"""A policy on a trace, before it is let loose: the same policies and agent, a real engine, and a virtual clock.

==========  ===================================================================================
traces      access traces in the formats that are around, read into arrays
lengths     how well pages compress: a distribution, and pages that compress like it
model       what a page costs that comes back, and how time is laid under a trace
machine     a cgroup with the pages of a trace in it, and the control files that the agent sees
belady      the best that could have been, knowing the future
run         one policy on one trace, and sweeps
plot        saved memory against time lost
record      makes a trace of a mapping that is in use
==========  ===================================================================================
"""
