"""File systems with one file, whose reads take their time, or whose writes do not end while it is written."""
