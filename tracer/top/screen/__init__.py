"""The terminal as a screen of lines, and its keys.

cells — lines of texts in named styles
key_input — bytes of a terminal as names of keys
terminal — the modes of the terminal, which are restored, and what it sends
paint — lines as escape sequences
coloured_output — the output of another verb as lines
"""
