"""File systems with one file, whose reads take a fixed time, or whose writes do not end while the writer
lives."""
