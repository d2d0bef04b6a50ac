"""The cache of documents: its contents, its bound, and the folders that it trusts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.capture.bpf.compiled.cache import Cache, cache_folder, cache_key

DOCUMENT = b"a document"
KEY = cache_key("a", "unit")


def test_get_of_its_own_key_returns_the_document(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "cache")
    assert cache.get(KEY) is None
    cache.put(KEY, DOCUMENT)
    assert cache.get(KEY) == DOCUMENT
    assert cache.get(cache_key("another")) is None
    assert [path.name for path in (tmp_path / "deep/cache").iterdir()] == [KEY], "no temporary file is left"
    assert (tmp_path / "deep/cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep/cache" / KEY).stat().st_mode & 0o777 == 0o600


def test_cache_key_of_parts_cut_elsewhere_differs() -> None:
    assert len({cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("ab", "c", "")}) == 4
    assert cache_key("ab", b"c") == cache_key(b"ab", "c")


@pytest.mark.parametrize("damage", [b"", b"x" * 31, b"x" * 40])
def test_get_of_a_damaged_file_returns_none(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, DOCUMENT)
    kept = tmp_path / KEY
    kept.write_bytes(damage or kept.read_bytes()[:-1])
    assert cache.get(KEY) is None
    cache.put(KEY, DOCUMENT)
    assert cache.get(KEY) == DOCUMENT


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_cache_in_a_folder_that_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put(KEY, DOCUMENT)
    (tmp_path / "cache").chmod(mode)
    assert cache.get(KEY) is None
    (tmp_path / "cache" / KEY).unlink()
    cache.put(KEY, DOCUMENT)
    assert list((tmp_path / "cache").iterdir()) == [], "nothing is written to such a folder"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_get_from_another_users_folder_returns_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put(KEY, DOCUMENT)
    os.chown(tmp_path / "cache", 65534, 65534)
    assert cache.get(KEY) is None


def test_get_through_a_link_returns_none(tmp_path: Path) -> None:
    Cache(tmp_path / "cache").put(KEY, DOCUMENT)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert Cache(tmp_path / "link").get(KEY) is None


def test_put_beyond_the_bound_removes_the_least_recently_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = [cache_key(str(number)) for number in range(72)]
    for age, key in enumerate(keys):
        cache.put(key, DOCUMENT)
        os.utime(tmp_path / key, ns=(age, age))
        assert cache.get(keys[0]) == DOCUMENT, "a document in use is never the oldest"
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {keys[0], *keys[-63:]}


def test_put_beyond_the_bound_leaves_foreign_files_alone(tmp_path: Path) -> None:
    """MEMCG_TRACER_CACHE may name a home directory."""
    for number in range(40):
        (tmp_path / f"letter-{number}").touch()
        os.utime(tmp_path / f"letter-{number}", (0, 0))
    cache = Cache(tmp_path)
    for number in range(72):
        cache.put(cache_key(str(number)), DOCUMENT)
    names = [path.name for path in tmp_path.iterdir()]
    assert len([name for name in names if name.startswith("letter-")]) == 40
    assert len(names) == 40 + 64


def test_cache_without_a_usable_folder_is_silently_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file", tmp_path / "file" / "below"):
        cache = Cache(folder)
        cache.put(KEY, DOCUMENT)
        assert cache.get(KEY) is None


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMCG_TRACER_CACHE", raising=False)
    assert cache_folder() == Path("/var/cache/memcg-tracer")
    monkeypatch.setenv("MEMCG_TRACER_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.setenv("MEMCG_TRACER_CACHE", "")
    assert cache_folder() is None
