"""The kernel log of a trace: what it adds to kills, and the kills that only it has."""
