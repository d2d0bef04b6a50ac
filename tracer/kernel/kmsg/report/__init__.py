"""The facts of an OOM report, and the lines that state them."""
