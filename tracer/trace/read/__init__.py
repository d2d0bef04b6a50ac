"""Reading a trace that may come from anyone: bounded, checked, and converted to pandas."""
