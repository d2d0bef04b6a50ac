"""The pages of files: the history of each one, and the spans in which it cannot be followed."""
