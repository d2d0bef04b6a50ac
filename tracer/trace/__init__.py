"""The trace on disk: a journal while it is recorded, Parquet after that.

Modules at the bottom serve both rooms:

    recording_ends — the reasons why a recording ended
    untrusted_files — files of a trace that may come from anyone
    layout — the files of a trace by table
    value_ranges — the range of numbers of each column
    meta_check — the values that each key of meta.json may have
    meta — meta.json
    arrow_columns — Arrow columns, without pandas
    schema_cast — rows cast to the schema of their table
    row_sink — what a recording writes its rows to
    identity_tables — tables in which a later row supersedes an earlier one
    ipc_message — compression of Arrow IPC messages
    journal_stream — the content of a journal

The rooms:

    write — the recorder's side: rows in, journals and Parquet files out
    history — the last minutes of a recording, in memory, for a trace that begins with them
    read — the reader's side: tables of any trace, checked, as Arrow and pandas
"""
