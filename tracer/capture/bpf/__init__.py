"""BPF programs and their maps: compiled, loaded, attached, read."""
