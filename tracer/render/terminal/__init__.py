"""Text for a terminal, made with rich."""
