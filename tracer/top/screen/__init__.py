"""The terminal as a screen of lines, and its keys.

cells — lines of texts in named styles
terminal — the modes of the terminal, which are restored, what it sends, and the names of keys
paint — lines as escape sequences, and the output of another verb as lines
"""
