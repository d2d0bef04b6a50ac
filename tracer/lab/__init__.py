"""Experiments with a known answer, which check the explanations.

The modules import from these rooms, and a room only from those above it:

    workload — work of known kinds and amounts, the command of each experiment
    disks — file systems whose reads take their time, or whose writes do not end
"""
