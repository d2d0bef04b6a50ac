"""The flight recorder: a trace of the minutes before each OOM kill, in a directory that stays bounded.

place — the directory of traces: names, publication, removal of the oldest
signs — what samples show before a kill
"""
