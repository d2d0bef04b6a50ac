"""The views that verbs draw: timeline, evictions and refaults, waits, reclaim, stack samples.

pages — the pages of files, one by one: their histories, and the spans in which they cannot be followed
"""
