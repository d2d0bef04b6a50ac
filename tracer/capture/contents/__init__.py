"""What is in memory now, without a trace: by cgroup, file, process and kmem_cache."""
