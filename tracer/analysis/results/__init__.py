"""The records that a post-mortem consists of, as frozen dataclasses, and their forms in JSON and pandas."""
