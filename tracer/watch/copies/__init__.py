"""Copies of finished traces at a URL.

copying_child — the child that copies
copying — which traces are to be copied, and one child at a time for that
"""
