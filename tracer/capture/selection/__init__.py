"""The cgroups to trace, as they are made, renamed and removed."""
