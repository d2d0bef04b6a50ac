"""The trace on disk: a journal while it is recorded, Parquet after that.

write — the recorder's side: rows in, journals and Parquet files out
read — the reader's side: tables of any trace, checked, as Arrow and pandas

Modules beside the rooms are used by both: the layout of the directory, meta.json, columns, and journals.
"""
