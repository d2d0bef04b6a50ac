from __future__ import annotations

from pathlib import Path

from support.bcc_library import why_too_old

HELPER = b"\x7fELF static __u64 (*bpf_ringbuf_query)(void *ringbuf, __u64 flags) = 0;\n"
"""What 0.26 has as well: the helper of the kernel."""


def test_library_without_ringbuf_query_of_tables_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(HELPER)
    (tmp_path / "new").write_bytes(HELPER + b"u64 (*ringbuf_query) (u64);")
    assert "0.26" in str(why_too_old(tmp_path / "old"))
    assert why_too_old(tmp_path / "new") is None
