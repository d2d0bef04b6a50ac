"""What is kept of compiled units, and from whom it is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.capture.bpf.object_cache import UnitCache, cache_folder, key_of
from tracer.capture.bpf.object_file import Code, MapDefinition, Unit

UNIT = Unit((MapDefinition("m", 1, 4, 8, 16, 0, '"int"', '"long"'),), {"p": Code(b"12345678", ((0, 0),))})
KEY = key_of("a", "unit")


def test_a_unit_is_kept_for_its_own_key(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path / "deep" / "cache")
    assert cache.get(KEY) is None
    cache.put(KEY, UNIT)
    assert cache.get(KEY) == UNIT
    assert cache.get(key_of("another")) is None
    assert [path.name for path in (tmp_path / "deep/cache").iterdir()] == [KEY], "nothing unfinished is left"
    assert (tmp_path / "deep/cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep/cache" / KEY).stat().st_mode & 0o777 == 0o600


def test_keys_tell_where_a_part_ends() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("ab", "c", "")}) == 4
    assert key_of("ab", b"c") == key_of(b"ab", "c")


@pytest.mark.parametrize("damage", [b"", b"x" * 31, b"x" * 40])
def test_a_damaged_unit_is_none(tmp_path: Path, damage: bytes) -> None:
    cache = UnitCache(tmp_path)
    cache.put(KEY, UNIT)
    kept = tmp_path / KEY
    kept.write_bytes(damage or kept.read_bytes()[:-1])
    assert cache.get(KEY) is None
    cache.put(KEY, UNIT)
    assert cache.get(KEY) == UNIT


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_nothing_is_taken_from_where_others_can_write(tmp_path: Path, mode: int) -> None:
    cache = UnitCache(tmp_path / "cache")
    cache.put(KEY, UNIT)
    (tmp_path / "cache").chmod(mode)
    assert cache.get(KEY) is None
    (tmp_path / "cache" / KEY).unlink()
    cache.put(KEY, UNIT)
    assert list((tmp_path / "cache").iterdir()) == [], "nor is anything put there"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_nothing_is_taken_from_another_user(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path / "cache")
    cache.put(KEY, UNIT)
    os.chown(tmp_path / "cache", 65534, 65534)
    assert cache.get(KEY) is None


def test_nothing_is_taken_through_a_link(tmp_path: Path) -> None:
    UnitCache(tmp_path / "cache").put(KEY, UNIT)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert UnitCache(tmp_path / "link").get(KEY) is None


def test_the_units_used_last_are_kept(tmp_path: Path) -> None:
    cache = UnitCache(tmp_path)
    keys = [key_of(str(number)) for number in range(40)]
    for age, key in enumerate(keys):
        cache.put(key, UNIT)
        os.utime(tmp_path / key, ns=(age, age))
        assert cache.get(keys[0]) == UNIT, "used each time, so never the oldest"
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {keys[0], *keys[-31:]}


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """As where the folder is somebody's home."""
    for number in range(40):
        (tmp_path / f"letter-{number}").touch()
        os.utime(tmp_path / f"letter-{number}", (0, 0))
    cache = UnitCache(tmp_path)
    for number in range(40):
        cache.put(key_of(str(number)), UNIT)
    names = [path.name for path in tmp_path.iterdir()]
    assert len([name for name in names if name.startswith("letter-")]) == 40
    assert len(names) == 40 + 32


def test_where_nothing_can_be_kept_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file", tmp_path / "file" / "below"):
        cache = UnitCache(folder)
        cache.put(KEY, UNIT)
        assert cache.get(KEY) is None


def test_the_folder_is_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMCG_TRACER_CACHE", raising=False)
    assert cache_folder() == Path("/var/cache/memcg-tracer")
    monkeypatch.setenv("MEMCG_TRACER_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.setenv("MEMCG_TRACER_CACHE", "")
    assert cache_folder() is None
