"""What is in memory now: by cgroup, file, process and kmem_cache."""
