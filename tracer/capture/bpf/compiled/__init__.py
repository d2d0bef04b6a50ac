"""The programs compiled for one kernel by a child process, and kept on disk."""
