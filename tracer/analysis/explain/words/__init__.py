"""The sentences of a report: its summary and its advice, and the names in them."""
