"""The same run at other limits: killed or not, and the page cache that it would read again.

`outcomes` stands above all modules, and asks `explain.sizing.replayed_run`. A module imports only from
modules above it in this list:

    pod_resize — the pod whose limit it is, and the kubectl command that sets another one
"""
