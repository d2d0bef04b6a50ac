"""The trace on disk: a journal while it is recorded, Parquet after that.

Modules at the bottom serve both rooms:

    recording_ends — the reasons why a recording ended
    layout — the files of a trace by table; only regular ones are opened
    meta — meta.json: its values, checked
    arrow_columns — Arrow columns, without pandas; rows as their table has them, the last of each key
    row_sink — what a recording writes its rows to
    journal_stream — the content of a journal

The rooms:

    write — the recorder's side: rows in, journals and Parquet files out
    history — the last minutes of a recording, in memory, for a trace that begins with them
    read — the reader's side: tables of any trace, checked, as Arrow and pandas
"""
