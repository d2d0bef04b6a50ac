"""The answer of `fleet`: what it says, as a text for a terminal, and as a page.

fleet_tables — sentences and tables of the answer, for the text and the page
fleet_text — the text
fleet_page — the page
"""
