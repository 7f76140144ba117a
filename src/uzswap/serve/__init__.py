"""The control files served outward: one virtual tree, and what makes it a mount, a socket, metrics.

virtual_tree.py  the tree and open files, whoever serves them
fuse.py     a mount of it
server.py   HTTP on a Unix socket, with openapi.py for its description and metrics.py for Prometheus
client.py   the other end of the socket
runtime.py  the directory in which engines are found
"""
