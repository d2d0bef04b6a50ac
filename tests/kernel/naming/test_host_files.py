"""The host's files: below another root, with its links, and within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.naming import host_files
from tracer.kernel.naming.host_files import HostFiles, as_name, get, host_root, parse_json, text

TOP = Path(__file__).parents[3]


def test_links_of_folders_are_those_of_the_host(files: HostFiles, put: Any, tmp_path: Path) -> None:
    """An absolute link of the host leads to a place of the host, and none leads out of it."""
    put("/run/state/a.json", {"in": "run"})
    put("/data/docker/b.json", {"in": "data"})
    (tmp_path / "outside.json").write_text('{"in": "outside"}')
    (files.root / "var").mkdir()
    (files.root / "var" / "run").symlink_to("/run")
    (files.root / "var" / "docker").symlink_to("../data/docker")
    (files.root / "var" / "out").symlink_to("../../../../../..")
    assert files.read_json("/var/run/state", "a.json") == {"in": "run"}
    assert files.read_json("/var/docker", "b.json") == {"in": "data"}
    assert files.place("/var/out") == files.root
    assert files.read_json("/var/out", "outside.json") is None


def test_links_in_a_circle_end(files: HostFiles) -> None:
    (files.root / "a").symlink_to("/b")
    (files.root / "b").symlink_to("/a")
    assert files.read("/a", "x") is None
    assert list(files.names("/a")) == []


def test_links_below_a_folder_are_refused(files: HostFiles, put: Any) -> None:
    secret = put("/secret/config.json", {"annotations": 1})
    folder = files.root / "tasks"
    folder.mkdir()
    (folder / "as-folder").symlink_to(secret.parent)
    (folder / "as-file").mkdir()
    (folder / "as-file" / "config.json").symlink_to(secret)
    assert files.read_json("/tasks", "as-folder", "config.json") is None
    assert files.read_json("/tasks", "as-file", "config.json") is None


def test_fifo_directory_and_device_are_no_files(files: HostFiles, put: Any) -> None:
    folder = put("/f/regular", b"{}").parent
    os.mkfifo(folder / "fifo")
    (folder / "directory").mkdir()
    assert [files.read("/f", name) for name in ("regular", "fifo", "directory", "absent", "\0")] == [
        b"{}",
        *[None] * 4,
    ]


def test_file_of_too_many_bytes_is_not_read(files: HostFiles, put: Any) -> None:
    put("/f/a", b"x" * 9)
    assert files.read("/f", "a", most_bytes=9) == b"x" * 9
    assert files.read("/f", "a", most_bytes=8) is None


def test_names_of_a_folder_are_bounded(files: HostFiles, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        put(f"/f/{number}", b"")
    monkeypatch.setattr(host_files, "MOST_ENTRIES", 5)
    assert len(set(files.names("/f"))) == 5
    assert list(files.names("/absent")) == []


def test_host_root_of_the_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCG_TRACER_HOST_ROOT", "/host")
    assert host_root() == HostFiles().root == Path("/host")


def test_host_root_is_that_of_process_1_if_it_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MEMCG_TRACER_HOST_ROOT", raising=False)
    roots = {tmp_path: tmp_path, Path("/"): Path("/"), tmp_path / "forbidden": Path("/")}
    for of_init, expected in roots.items():
        monkeypatch.setattr(host_files, "_ROOT_OF_INIT", of_init)
        assert host_root() == expected


IN_ANOTHER_ROOT = """
import os, sys
ready, go = os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    from tracer.kernel.naming.host_files import HostFiles
    files = HostFiles()
    print(files.root, files.read_json("/link", "a.json"))
    sys.stdout.flush()
    os._exit(0)
os.chroot(sys.argv[1])
os.write(go, b".")
os.wait()
"""
"""Process 1 of a pid namespace changes its root; its child keeps the old one, as in a pod with hostPID."""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_below_the_root_of_process_1_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text("[1]")
    (tmp_path / "link").symlink_to("/folder")
    command = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a namespace of pids")
    environment = {name: value for name, value in os.environ.items() if name != "MEMCG_TRACER_HOST_ROOT"}
    done = subprocess.run(
        [*command, sys.executable, "-c", IN_ANOTHER_ROOT, str(tmp_path)],
        cwd=TOP,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "/proc/1/root [1]\n", done.stderr


@pytest.mark.parametrize(
    "content", [None, b"", b"[", b"\xff", b"[" * 100_000, '{"a":' * 100_000, 7, b"1" * 5000]
)
def test_no_json_is_none(content: object) -> None:
    assert parse_json(content) is None


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(documents, st.lists(st.text(), max_size=3))
def test_texts_of_any_document_are_none_or_names(document: object, keys: list[str]) -> None:
    value = text(document, *keys)
    assert value is None or (value == get(document, *keys) and 0 < len(value) <= host_files.LONGEST_NAME)


def test_overlong_name_is_none() -> None:
    assert as_name("n" * host_files.LONGEST_NAME) == "n" * host_files.LONGEST_NAME
    assert as_name("n" * (host_files.LONGEST_NAME + 1)) is None
    assert as_name("") is None


def test_folder_that_was_absent_is_looked_for_again_unless_for_once(files: HostFiles, put: Any) -> None:
    once = HostFiles(files.root, is_for_once=True)
    assert files.read_json("/run/state", "a.json") is once.read_json("/run/state", "a.json") is None
    put("/run/state/a.json", {"in": "run"})
    assert files.read_json("/run/state", "a.json") == {"in": "run"}
    assert once.read_json("/run/state", "a.json") is None
    assert list(once.names("/run")) == ["state"]
