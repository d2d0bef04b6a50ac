"""The HTML page and its pictures."""
