"""Passes over a spool: what is copied, left, refused, removed, and reported once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.storing.object_store import ObjectStore
from support.storing.spooled_trace import contents, write_spooled

from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing.passing import Outcome, Passes, move, require_absent_trace, split_url
from tracer.fleet.pushing.target import Target, TargetError

HOSTILE = "a%2F\n*?[x]#\udcff\x1b[31m"


def passes(spool: Path, url: str, reported: list[Outcome], **options: Any) -> Passes:
    return Passes(spool, Target(url), report=reported.append, warn=pytest.fail, **options)


def states(reported: list[Outcome]) -> dict[str, str]:
    return {outcome.trace.name: outcome.state for outcome in reported}


def test_each_trace_is_copied_once_and_reported_once(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    for number, name in enumerate(("a", "deep/b")):
        write_spooled(spool / name, start_ns=number)
    write_spooled(spool / "young", ended=None, age_s=1)
    reported: list[Outcome] = []
    work = passes(spool, "memory://bucket", reported)
    work.run()
    assert states(reported) == {"a": "pushed", "b": "pushed", "young": "later"}
    operations: list[str] = []
    store.before = staticmethod(lambda what, path: operations.append(what))
    work.run()
    assert (len(reported), operations) == (3, [])
    write_spooled(spool / "c", start_ns=7)
    work.run()
    assert [outcome.url for outcome in reported[3:]] == ["memory://bucket/c"]
    again: list[Outcome] = []
    passes(spool, "memory://bucket", again).run()
    assert set(states(again).values()) == {"there", "later"}


def test_broken_trace_is_reported_and_the_others_are_copied(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    write_spooled(spool / "a")
    (spool / "a/meta.json").write_bytes(b"{")
    write_spooled(spool / "b", start_ns=2)
    (spool / "b/oom.parquet").unlink()
    (spool / "b/oom.parquet").symlink_to("/etc/passwd")
    write_spooled(spool / "c", start_ns=3)
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported).run()
    assert states(reported) == {"a": "failed", "b": "failed", "c": "pushed"}
    assert all(outcome.why for outcome in reported[:2])
    assert not any("passwd" in path or "/b/" in path for path in store.objects())


def test_unusable_target_ends_the_pass_and_the_next_goes_on(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    for number, name in enumerate("abc"):
        write_spooled(spool / name, start_ns=number)

    def refuse(what: str, path: str) -> None:
        if what == "put" and "/b/" in path:
            raise PermissionError("Access Denied")

    store.before = staticmethod(refuse)
    reported: list[Outcome] = []
    work = passes(spool, "memory://bucket", reported)
    with pytest.raises(TargetError, match=r"cannot use memory://bucket/b/.*: Access Denied"):
        work.run()
    assert states(reported) == {"a": "pushed"}
    store.before = staticmethod(lambda what, path: None)
    work.run()
    assert states(reported) == dict.fromkeys("abc", "pushed")


def test_dry_run_changes_nothing(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    write_spooled(spool / "a")
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported, is_dry=True, removes=True).run()
    assert [(outcome.state, outcome.url) for outcome in reported] == [("missing", "memory://bucket/a")]
    assert store.objects() == {}
    assert (spool / "a").exists()


def test_trace_is_removed_after_it_was_read_back(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    expected = contents(write_spooled(spool / "a"))
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported, removes=True).run()
    assert [outcome.is_removed for outcome in reported] == [True]
    assert list(spool.iterdir()) == []
    assert {path[len("/bucket/a/") :]: content for path, content in store.objects().items()} == expected


def test_trace_whose_copy_differs_is_kept(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    write_spooled(spool / "a")

    def corrupt(what: str, path: str) -> None:
        if what == "read" and path.endswith("charge.parquet"):
            store.store[path].seek(0)
            store.store[path].write(b"X")

    store.before = staticmethod(corrupt)
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported, removes=True).run()
    (outcome,) = reported
    assert (outcome.state, outcome.is_removed) == ("pushed", False)
    assert outcome.why == "it is kept here: at the URL are other bytes"
    assert (spool / "a/meta.json").exists()


def test_trace_with_a_foreign_file_is_copied_but_not_removed(
    tmp_path: Path, store: type[ObjectStore]
) -> None:
    spool = tmp_path / "spool"
    write_spooled(spool / "a")
    (spool / "a/notes.txt").write_text("mine")
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported, removes=True).run()
    assert reported[0].why is not None and "notes.txt" in reported[0].why
    assert (spool / "a/notes.txt").exists()


def test_trace_that_was_removed_meanwhile_is_no_failure(tmp_path: Path, store: type[ObjectStore]) -> None:
    spool = tmp_path / "spool"
    trace = write_spooled(spool / "a")

    def take(what: str, path: str) -> None:
        if trace.exists():
            trace.rename(tmp_path / "gone")

    store.before = staticmethod(take)
    reported: list[Outcome] = []
    passes(spool, "memory://bucket", reported).run()
    assert reported == []
    assert not any(path.endswith("meta.json") for path in store.objects())


@pytest.mark.parametrize("url", ["memory://bucket/x", "file://{tmp}/at"])
def test_hostile_name_is_one_plain_name_at_the_target(
    tmp_path: Path, store: type[ObjectStore], url: str
) -> None:
    spool = tmp_path / "spool"
    expected = contents(write_spooled(spool / HOSTILE / "we b"))
    reported: list[Outcome] = []
    work = passes(spool, url.format(tmp=tmp_path), reported)
    work.run()
    (outcome,) = reported
    assert outcome.url is not None and outcome.url.isascii() and outcome.url.isprintable()
    place = outcome.url.split("/", 3 if url.startswith("m") else 2)[-1]
    if url.startswith("m"):
        assert {f"/bucket/{place}/{file}": content for file, content in expected.items()} == store.objects()
    else:
        assert contents(Path(place)) == expected


def test_target_inside_of_the_spool_is_refused(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    write_spooled(spool / "a")
    (tmp_path / "link").symlink_to(spool)
    for url in (f"file://{spool}/at", str(spool), f"{tmp_path}/link/at"):
        with pytest.raises(UsageError, match="name a place outside of it"):
            passes(spool, url, [])
    passes(spool, f"{spool}-2", []).run()


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
