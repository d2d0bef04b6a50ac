"""Look-ups into tables, by id or time: cgroups, processes, stacks, losses, reports of the kernel log."""
