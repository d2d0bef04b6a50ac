"""The kernel log of a trace: its additions to recorded kills, and the kills that only it has."""
