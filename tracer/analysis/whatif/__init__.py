"""The same run at other limits: killed or not, and the page cache that it would read again."""
