"""URLs in place of paths, and passwords that are not shown."""

from __future__ import annotations

import pytest

from tracer.urls import is_url, shown_url


@pytest.mark.parametrize("text", ["s3://b", "file:///x", "simplecache::s3://b", "a+b.c-d://x"])
def test_url_is_one(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", ["", "s3:/b", "/s3://b", "traces/x", "./a://b", "1s://x", "a b://x"])
def test_path_is_none(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sftp://me:secret@host/x", "sftp://me:***@host/x"),
        ("ftp://:secret@host:21/x", "ftp://:***@host:21/x"),
        ("simplecache::sftp://me:se:cr@host/x", "simplecache::sftp://me:***@host/x"),
        ("sftp://me:se@cr:et@host/x", "sftp://me:***@host/x"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        (
            "abfss://container@account.dfs.core.windows.net/x",
            "abfss://container@account.dfs.core.windows.net/x",
        ),
        ("https://ghp_TOKEN@host/x", "https://***@host/x"),
        ("https://h/c?sv=1&sig=a%2Bb%3D&se=2", "https://h/c?sv=***&sig=***&se=***"),
        ("https://h/c?TOKEN", "https://h/c?***"),
        ("s3://b/x?token=a=b#c", "s3://b/x?token=***#c"),
        ("no /a?b=c, but 'https://h/c?sig=ab': refused", "no /a?b=c, but 'https://h/c?sig=***': refused"),
    ],
)
def test_password_is_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
