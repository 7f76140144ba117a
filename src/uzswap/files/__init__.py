"""Control files: what can be read and written, one row a file, for every door there is.

==============  ========================================================================
cgroup          the table of a cgroup's files
engine          the table of the engine's: parameters, debugfs counters, with proc and histograms
file            what a row is, and an open file
sessions        what belongs to one open file: polls, peaks, triggers
view            what the tables read of an engine
==============  ========================================================================
"""
