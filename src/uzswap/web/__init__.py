"""A page that shows engines at work: where memory is, what comes and goes, and what a request would do.

history      what was, of each cgroup: an hour by seconds, a day by minutes, bounded
source       one engine, looked at once a second over its socket; requests under way
treemap      rectangles of cgroups by size
figures      the plots, made with bokeh
document     the HTML, with everything inline: it works offline
guard        who may: a token, this host, this origin
application  what each request does
page         one engine's, beside what else serves it
server       all engines', on a port of its own

A client of :mod:`uzswap.client` alone: it shows an engine of this process as it shows one of another.  ``uzswap web``
and ``z.serve(port=..., web=True)`` start it.
"""
