"""Memory cgroups: their directories, the contents of their files, and their containers."""
