"""A module for each runtime whose memory the recorder can see from outside.

The record of a runtime (`RUNTIME`, a RuntimeRecord) has its numbers, its lines in a report and its advice on
a killed process; `known_runtimes` lists the records. Memory of a runtime that mappings do not show is read in
`tracer.kernel.anatomy`.
"""
