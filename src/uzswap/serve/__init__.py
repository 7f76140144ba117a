"""Control files outward: one virtual tree, and what makes it a mount, a socket, metrics.

==============  ========================================================================
virtual_tree    the tree and its open files, whoever serves them
fuse            a mount of it
server          HTTP on a Unix socket; requests is what each does, openapi its description
metrics         all numbers, for Prometheus
watch           polls of many files with one thread
peer            who is at the other end
serving         all that serves one engine, and its entry in the runtime directory
==============  ========================================================================
"""
