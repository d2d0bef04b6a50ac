"""The choice of the victim: badness, the ranking of the candidates, and changes that would alter it."""
