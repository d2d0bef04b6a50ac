"""Parts of every picture: layers of memory, markers of events, kinds of waiting."""
