"""Markdown for tickets and the pages of CI jobs, in the dialect that GitHub and GitLab share.

marks — marks of Markdown around words that are shown as they are
explanation — the answer of `explain`
"""
