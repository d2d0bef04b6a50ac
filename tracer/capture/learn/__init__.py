"""Facts that the kernel's types do not show: positions of counters, costs of events."""
