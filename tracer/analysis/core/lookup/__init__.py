"""Look-ups into tables, by id or time: cgroups, processes, stacks, losses, sums, reports of the log."""
