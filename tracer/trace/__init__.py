"""The trace on disk: journal while recording, Parquet after, and the reader of both."""
