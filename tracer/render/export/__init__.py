"""Files and text formats for other tools."""
