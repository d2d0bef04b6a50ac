"""One trace to the URL that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.storing.object_store import ObjectStore
from support.storing.spooled_trace import contents, write_spooled

from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing.single import move, require_absent_trace, split_url

URL = "memory://oom/runs/web"


@pytest.mark.parametrize(
    ("url", "place", "name"),
    [
        ("s3://bucket/web", "s3://bucket", "web"),
        ("s3://bucket/a/b/", "s3://bucket/a", "b"),
        ("file:///web", "file:///", "web"),
        ("simplecache::s3://bucket/web", "simplecache::s3://bucket", "web"),
    ],
)
def test_url_is_place_and_name(url: str, place: str, name: str) -> None:
    assert split_url(url) == (place, name)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://", "file:///x/..", "file:///x/."])
def test_url_without_a_name_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="names no trace: add a name"):
        split_url(url)


def test_trace_is_moved(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = write_spooled(tmp_path / "web")
    expected = {f"/oom/runs/web/{name}": content for name, content in contents(trace).items()}
    require_absent_trace(URL, force=False)
    assert move(trace, URL, force=False, warn=pytest.fail) == URL
    assert store.objects() == expected
    assert not trace.exists()


def test_trace_at_the_url_is_replaced_with_force_only(tmp_path: Path, store: type[ObjectStore]) -> None:
    move(write_spooled(tmp_path / "web"), URL, force=False, warn=pytest.fail)
    with pytest.raises(TracerError, match=r"memory://oom/runs/web exists: .*overwrite it with -f"):
        require_absent_trace(URL, force=False)
    require_absent_trace(URL, force=True)
    second = write_spooled(tmp_path / "web", start_ns=2, files={"oom.parquet": b"2"})
    assert move(second, URL, force=True, warn=pytest.fail) == URL
    assert set(store.objects()) == {"/oom/runs/web/oom.parquet", "/oom/runs/web/meta.json"}


def test_trace_that_came_meanwhile_is_kept(tmp_path: Path, store: type[ObjectStore]) -> None:
    move(write_spooled(tmp_path / "web"), URL, force=False, warn=pytest.fail)
    second = write_spooled(tmp_path / "web", start_ns=2)
    assert move(second, URL, force=False, warn=pytest.fail).startswith(f"{URL}-")
    assert sum(path.endswith("/meta.json") for path in store.objects()) == 2


def test_trace_that_cannot_be_copied_stays(tmp_path: Path, store: type[ObjectStore]) -> None:
    trace = write_spooled(tmp_path / "web")

    def refuse(what: str, path: str) -> None:
        if what == "put":
            raise PermissionError("Access Denied")

    store.before = staticmethod(refuse)
    with pytest.raises(TracerError, match="Access Denied"):
        move(trace, URL, force=False, warn=pytest.fail)
    assert (trace / "meta.json").exists()
    young = write_spooled(tmp_path / "young", ended=None, age_s=0)
    with pytest.raises(TracerError, match="not complete yet"):
        move(young, "memory://oom/young", force=False, warn=pytest.fail)


@pytest.mark.parametrize(
    ("url", "such_as"),
    [("s3://", "s3://bucket/web"), ("s3://bucket/", "s3://bucket/web"), ("file:///x/..", "file:///x/../web")],
)
def test_url_without_a_name_gets_one_that_is_a_url(url: str, such_as: str) -> None:
    with pytest.raises(UsageError) as raised:
        split_url(url)
    assert str(raised.value).endswith(f"such as {such_as}")
