"""Reading a trace that may come from anybody: bounded, checked, and converted to pandas."""
