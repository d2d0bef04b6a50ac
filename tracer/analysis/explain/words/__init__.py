"""The sentences of a report: its summary, its evidence, its advice and the grounds of its range.

Other modules of `explain` return kinds and numbers, and only the assembly of a report imports this package. A
kind without words is an ImportError here, or a failed test. Names of processes and cgroups in the sentences
are not escaped: text for a terminal or a page must pass `render.words.escape.visible` afterwards.
"""
