"""Finished traces, copied to where the traces of many machines are collected: an object store, a file server.

A module imports only from modules above it in this list:

    finished — the finished traces below a directory
    attempts — what fails for a moment there, and is tried again
    target — the place that a URL names, and what can be done there
    upload — one trace to its place: whole, or not there
    passing — all traces of a directory to a place, once; or one trace to the URL that names it
"""
