"""The last minutes of a recording, kept in memory until a trace begins with them.

thinning — rows of an interval reduced to one of each group
"""
