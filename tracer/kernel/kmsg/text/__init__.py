"""The text of a kernel log: from a file's bytes to the messages that the kernel printed."""
