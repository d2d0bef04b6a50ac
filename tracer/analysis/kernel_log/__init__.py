"""What the kernel log of a trace adds to its kills, and the kills that only the log has."""
