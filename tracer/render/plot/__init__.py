"""Pictures as matplotlib Axes: `t.plot` of the object that `tracer.open` returns.

Each is drawn from tables and reports that `t` has as well, in bytes and in seconds from the kill, so that the
data of the artists can be compared with the tables.
"""
