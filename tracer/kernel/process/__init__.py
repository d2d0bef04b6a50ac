"""Processes that the recorder starts, its own priority, and the titles of other processes."""
