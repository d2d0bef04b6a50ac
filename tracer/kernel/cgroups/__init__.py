"""Memory cgroups: their directories, the contents of their files, and the containers that they belong to."""
