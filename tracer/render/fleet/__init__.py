"""The answer of `fleet`, as a text for a terminal and as a page.

limit_states — which limits are too low and which too high
kill_groups — the kills of all hosts together
fleet_facts — the answer in sentences, for the text and the page
fleet_tables — its tables, for both
fleet_pictures — its pictures, for the page
fleet_text — the text
fleet_page — the page
"""
