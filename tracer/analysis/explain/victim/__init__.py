"""The choice of the victim: badness, the ranking of the candidates, and what would have changed it."""
