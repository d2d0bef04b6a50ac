"""The object that `tracer.open` returns, and its pictures as matplotlib Axes: `t.plot`.

Each picture is drawn from tables and reports that `t` also offers, in bytes and in seconds from the kill, so
that the data of the artists can be compared with the tables.
"""
