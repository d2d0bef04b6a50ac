"""What cannot be named in a table of evictions, or is on nobody's account."""

from __future__ import annotations

from tracer.render.words import eviction_words


def test_file_without_a_path_is_named_by_device_and_inode() -> None:
    row = {
        "path": None,
        "dev": "254:0",
        "ino": 7,
        "deleted": True,
        "use": None,
        "owners": 2,
        "evictor_tgid": None,
    }
    assert eviction_words.file_names(row) == (
        *("2 cgroups", "", ""),
        "(deleted) no name known: 254:0 inode 7",
    )
    assert eviction_words.file_names(row | {"dev": None})[-1] == "files that were not told apart"


def test_cgroups_and_processes_without_a_name_are_said_to_be_unknown() -> None:
    row: dict[str, object] = {
        "cgroup": None,
        "container": None,
        "task_cgroup": None,
        "run": None,
        "runs": None,
    }
    row |= {"charged_to": "nobody", "cgroup_id": None, "task_cgroup_id": 3}
    assert eviction_words.cgroup_names(row) == ("nobody", "not known")
    assert eviction_words.process_names({"comm": None, "tgid": None, "task_cgroup": None}) == (
        *("not known", "not known"),
    )
    assert eviction_words.cause_names({"cause": "readahead"}) == ("readahead", "read ahead, or on request")
