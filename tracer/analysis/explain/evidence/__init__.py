"""Evidence of a kill: records of a kind, its numbers and their source, without words."""
