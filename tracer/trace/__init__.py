"""The trace on disk: a journal while it is recorded, Parquet after that.

Modules at the bottom serve both rooms:

    recording_ends — the reasons why a recording ended
    layout — the files of a trace by table; only regular ones are opened
    meta — meta.json: its values, checked
    arrow_columns — Arrow columns, without pandas, and rows cast to the schema of their table
    row_sink — what a recording writes its rows to
    identity_tables — tables in which a later row supersedes an earlier one
    journal_stream — the content of a journal

The rooms:

    write — the recorder's side: rows in, journals and Parquet files out
    history — the last minutes of a recording, in memory, for a trace that begins with them
    read — the reader's side: tables of any trace, checked, as Arrow and pandas
"""
