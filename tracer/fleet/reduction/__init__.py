"""From many traces and datasets to one answer, with Dask, or to one dataset.

A module imports only from modules above it in this list:

    inputs — the traces and datasets below paths and URLs
    fetched_trace — a trace on this machine, also one that lies behind a URL
    partial_state — what has been read of some traces, and the union of two of these
    piece_reader — the partial state of one piece of work
    work_tree — the graph: pieces, their boots, and a tree of unions
    worker_processes — processes that compute, each at the other end of a pipe of its own
    embedded — the graph on processes of this machine
    additions — traces into a dataset, on processes of this machine
    cluster — the graph on a cluster of Dask
    fleet_answer — kills, limits and evictors of the whole fleet, as JSON and for texts
    fleet_run — from paths to the answer
"""
