"""Runs of a command at several limits, to find the least that it needs.

search — which limit to try next, and what the runs show
folder — the runs on disk, from which an interrupted search goes on
recorded_run — one run at one limit, under `record`
driver — the runs of a search, one after the other
"""
