"""The answer of `fit`: the ends of runs in words, a text for a terminal, a picture of the curve."""
