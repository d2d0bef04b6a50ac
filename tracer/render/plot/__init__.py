"""Pictures as matplotlib Axes: `t.plot` of the object that `tracer.open` returns.

Each picture is drawn from tables and reports that `t` also offers, in bytes and in seconds from the kill, so
that the data of the artists can be compared with the tables.
"""
