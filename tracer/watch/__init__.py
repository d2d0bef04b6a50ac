"""The flight recorder: a trace of the minutes before each OOM kill, in a directory that stays bounded.

place — the directory of traces: names, publication, removal of the oldest
completing — the child that turns a trace into Parquet and explains it, with the pods of its kills
cost — the CPU time and memory of `watch` itself
judging — the child that judges each kill at once
first_verdicts — the last seconds of a cgroup, for that child
child — a process of ours or of the user, that works while the recorder goes on
growing_code — the code that makes memory grow now
copying — the same traces at a URL, by a child
finishing — the queue of traces to complete, and the command that gets their paths
pod_account — the account of a pod at the API server of its cluster
pod_events — events on pods that had a kill, sent by a child
"""
