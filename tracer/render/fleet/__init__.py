"""The answer of `fleet`, as a text for a terminal and as a page.

limit_states — which limits are too low and which too high
fleet_facts — the answer in sentences, and the kills of all hosts together, for the text and the page
fleet_tables — its tables, for both
fleet_text — the text
fleet_page — the page, with its pictures
"""
