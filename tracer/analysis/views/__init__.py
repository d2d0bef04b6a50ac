"""What the verbs draw: the timeline of cgroups, evictions and refaults, waits, reclaim, stack samples."""
