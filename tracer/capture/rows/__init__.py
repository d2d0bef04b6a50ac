"""Rows of the trace's tables, from records and from the kernel's files."""
