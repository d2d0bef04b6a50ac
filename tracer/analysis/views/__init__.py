"""The views that verbs draw: timeline, evictions and refaults, waits, reclaim, stack samples."""
