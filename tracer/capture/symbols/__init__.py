"""Names of the addresses in stacks."""
