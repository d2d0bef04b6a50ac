"""The live view: what each cgroup's memory does now, and what was decided about it.

screen — the terminal as a screen of lines, and its keys
live_row — the numbers of a cgroup, from snapshots of the recording
short_numbers — numbers in six cells
list_columns — the columns of the list, and which of them fit
feed — decisions: limits that were hit, reclaim that freed nothing, kills
files_now — what the page cache of a cgroup has now, read by a child
details — what is shown of one cgroup: its memory, processes, files and reclaim
help_text — what keys do and columns mean
view_state — what the user sees and selected, in which order, and what a key does to it
frame — the lines of a frame
recording_view — from the rows of a recording to all that is shown
live_view — a recording that is shown while it goes on
"""
