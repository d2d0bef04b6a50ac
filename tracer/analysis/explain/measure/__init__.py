"""The findings on a kill, measured in the tables of a trace or read from a kernel log."""
