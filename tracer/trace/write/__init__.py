"""Writing a trace: rows to journals at once, journals to Parquet files later."""
