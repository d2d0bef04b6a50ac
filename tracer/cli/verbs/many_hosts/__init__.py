"""Verbs for the traces of many hosts: how they come to one place, and what they say together."""
