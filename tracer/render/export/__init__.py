"""Text formats for other tools."""
