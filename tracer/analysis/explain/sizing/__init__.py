"""The least limit under which the same work would have lived: a range in bytes, and what it rests on."""
