"""The live view: what each cgroup's memory does now, and what was decided about it.

screen — the terminal as a screen of lines, and its keys
live_row — what is shown of a cgroup
short_numbers — numbers in six cells
list_columns — the columns of the list, and which of them fit
feed — decisions: limits that were hit, reclaim that freed nothing, kills
files_now — what the page cache of a cgroup has now, read by a child
details — what is shown of one cgroup: its memory, processes, files and reclaim
help_text — what keys do and columns mean
tree_order — the order of the rows: a tree, or a list
view_state — what the user sees and selected, and what a key does to it
frame — the lines of a frame
now_rows — from snapshots of the recording to rows
recording_view — from the rows of a recording to all that is shown
live_view — a recording that is shown while it goes on
"""
