"""The minimum limit under which the same work would have survived: a range in bytes, and its grounds."""
