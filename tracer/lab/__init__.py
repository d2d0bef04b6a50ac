"""Experiments with a known answer, which check the explanations."""
