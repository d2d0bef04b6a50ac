"""The wire: the records that BPF programs send to user space, and the streams that carry them."""
