"""OOM reports from a kernel log, in any format in which it was stored or pasted.

text — the text of a log: from a file's bytes to the messages of the kernel
report — the facts of an OOM report, and the lines that state them

Modules beside the rooms use both: they assemble reports, merge copies, and open the log files.
"""
