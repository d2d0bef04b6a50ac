"""The same run at other limits: killed or not, and the page cache that it would read again.

`outcomes` stands above all modules. A module imports only from modules above it in this list:

    demand — the limits below which the run is killed, and from which it is not, with the reasons
    read_again — the page cache that the run would read again at a limit, and the time that this takes
    pod_resize — the pod whose limit it is, and the kubectl command that sets another one
"""
