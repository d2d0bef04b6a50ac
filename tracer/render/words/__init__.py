"""Phrases: labels, sentences and table cells that the terminal and the page share."""
