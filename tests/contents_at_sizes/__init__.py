"""`contents` beside memory.stat, at sizes for which the suite has no time."""
