"""Experiments with a known answer, which check the explanations.

The modules import from one room:

    workload — work of known kinds and amounts, the command of each experiment
"""
