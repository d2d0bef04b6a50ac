"""Memory cgroups: where they are, what their files contain, and which containers they belong to."""
