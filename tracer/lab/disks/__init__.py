"""File systems with one file: reads take a fixed time, or writes do not end while the writer lives."""
