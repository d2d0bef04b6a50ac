"""Processes that the recorder starts, its own priority and limits, and the titles of other processes."""
