"""Verbs for the traces of many hosts: `push` copies them to one place, `fleet` summarises them."""
