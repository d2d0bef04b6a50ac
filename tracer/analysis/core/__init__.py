"""The base of every analysis: columns of tables, look-ups, names, and levels of memory.

Modules here import from these, and each of these only from those above it:

    columns — from pandas columns to NumPy arrays
    limits — limits as the kernel has them
    index — rows of a table by key
    rows — rows of a large table, a batch at a time or those of some cgroups
    charges, evicted — the columns of large tables that several analyses read, as arrays
    lives — the cgroups that had one name, one after the other
    lookup — look-ups into tables, by id or time
    page_cache — the events of the page cache in little memory
"""
