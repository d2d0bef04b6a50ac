from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import TracerError
from tracer.kernel import features
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import Mount
from tracer.kernel.features import Check, State

INITIAL = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC, "cgroup": 0xEFFFFFFB}


def status(capabilities: int, user: int = 0) -> str:
    """Return /proc/self/status of a process whose effective and bounding sets differ, as do its users."""
    uids = f"Uid:\t1000\t{user}\t1000\t1000"
    return f"Name:\tpython3\n{uids}\nCapEff:\t{capabilities:016x}\nCapBnd:\t{2**41 - 1:016x}\n"


def mount(fs_type: str, mount_point: str) -> Mount:
    return Mount(30, 20, (0, 30), "/", mount_point, fs_type, fs_type, frozenset())


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


@pytest.mark.parametrize(
    ("capabilities", "state"),
    [
        (0, State.MISSING),
        (bits(39), State.MISSING),  # CAP_BPF alone reads no kernel memory
        (bits(38), State.MISSING),
        (bits(21), State.OK),
        (bits(38, 39), State.DEGRADED),
        (0x1FFFFFFFFFF, State.OK),
    ],
)
def test_permissions_follow_effective_capabilities(capabilities: int, state: State) -> None:
    check = features.permissions(status(capabilities))
    assert check.state is state
    assert check.prevents_recording is (state is State.MISSING)


def test_permissions_of_other_user_are_missing() -> None:
    check = features.permissions(status(0x1FFFFFFFFFF, user=1000))
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert "as user 1000" in check.detail


def test_permissions_missing_capability_names_cost() -> None:
    check = features.permissions(status(bits(38, 39)))
    assert "no CAP_SYS_ADMIN" in check.detail
    assert "the cost of an event cannot be measured" in check.cost


def test_namespaces_of_host_and_container() -> None:
    assert features.namespaces(INITIAL, shows_root=True).state is State.OK
    other = INITIAL | {"pid": 4026532200, "cgroup": 4026532201}
    container = features.namespaces(other, shows_root=False)
    assert container.state is State.DEGRADED
    assert "a pid and a cgroup namespace" in container.detail
    none = features._own_namespaces(Path("/none"))
    assert features.namespaces(none, shows_root=True).state is State.OK, "a kernel built without namespaces"
    rootless = features.namespaces(INITIAL | {"user": 4026532199}, shows_root=True)
    assert rootless.state is State.MISSING
    assert rootless.prevents_recording


def test_cgroup_namespace_hides_nothing_if_the_root_is_mounted() -> None:
    own = INITIAL | {"cgroup": 4026532201}
    assert features.namespaces(own, shows_root=True).state is State.OK
    assert features.namespaces(own, shows_root=False).state is State.DEGRADED
    assert features.namespaces(own | {"pid": 4026532200}, shows_root=True).state is State.DEGRADED


def test_btf_missing_prevents_recording() -> None:
    absent = features.btf(TracerError("no BTF at /sys/kernel/btf/vmlinux"))
    assert (absent.state, absent.prevents_recording) == (State.MISSING, True)


class Types(Btf):
    """A BTF with only these structures."""

    def __init__(self, *structs: str) -> None:
        self.structs = structs

    def struct(self, name: str) -> int | None:
        return 1 if name in self.structs else None


def test_btf_of_unsupported_kernel_prevents_recording() -> None:
    before_folios = features.btf(Types("mem_cgroup"))
    assert (before_folios.state, before_folios.prevents_recording) == (State.MISSING, True)
    assert "struct folio" in before_folios.detail
    assert "CONFIG_MEMCG" in features.btf(Types("folio")).detail


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("[none] integrity confidentiality\n", State.OK),
        ("none [integrity] confidentiality\n", State.OK),
        ("none integrity [confidentiality]\n", State.MISSING),
    ],
)
def test_lockdown_prevents_only_in_confidentiality(tmp_path: Path, text: str, state: State) -> None:
    path = tmp_path / "lockdown"
    path.write_text(text)
    check = features.lockdown(path, [])
    assert (check.state, check.prevents_recording) == (state, state is State.MISSING)


def test_lockdown_unmounted_is_unknown_and_not_built_in_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "lockdown"
    assert features.lockdown(path, [mount("tmpfs", "/tmp")]).state is State.UNKNOWN
    assert features.lockdown(path, [mount("securityfs", "/sys/kernel/security")]).state is State.OK


def test_memory_controller_missing_prevents_recording() -> None:
    check = features.memory_controller(TracerError("boot with cgroup_enable=memory"))
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert "cgroup_enable=memory" in check.detail
    assert (
        "v2 at /sys/fs/cgroup" in features.memory_controller(Hierarchy(2, Path("/sys/fs/cgroup"), "/")).detail
    )


def test_pressure_on_v1_is_degraded(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    v1, v2 = (Hierarchy(version, Path("/sys/fs/cgroup"), "/") for version in (1, 2))
    assert features.pressure(path, v2).state is State.MISSING
    path.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    assert features.pressure(path, v2).state is State.OK
    assert features.pressure(path, v1).state is State.DEGRADED


def test_tracefs_is_reported_but_not_needed() -> None:
    assert "not mounted" in features.tracefs([]).detail
    mounted = features.tracefs([mount("tracefs", "/sys/kernel/tracing")])
    assert "/sys/kernel/tracing" in mounted.detail
    assert {features.tracefs([]).state, mounted.state} == {State.OK}


def test_swap_areas_of_any_name_are_summed(tmp_path: Path) -> None:
    swaps, heading = tmp_path / "swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    assert "none" in features.swap(swaps).detail, "a kernel without swap has no such file"
    swaps.write_text(heading)
    assert "none" in features.swap(swaps).detail
    areas = r"/swap\040file" + "\tfile\t\t1048572\t\t0\t\t-2\n/dev/sda2\tpartition\t2097148\t\t12\t\t-3\n"
    swaps.write_text(heading + areas)
    assert features.swap(swaps).detail == "3 GiB in 2 area(s)"


def test_huge_pages_not_built_in_is_ok(tmp_path: Path) -> None:
    assert "none" in features.huge_pages(tmp_path / "enabled").detail
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert features.huge_pages(tmp_path / "enabled").detail == "madvise"


@given(st.integers(0, 2**64 - 1))
def test_checks_not_ok_have_cost(capabilities: int) -> None:
    check = features.permissions(status(capabilities))
    assert (check.state is State.OK) == (check.cost == "") == (check.remedy == "")


def test_examine_running_kernel_as_any_user() -> None:
    checks = features.examine()
    assert len({check.name for check in checks}) == len(checks)
    assert all(isinstance(check, Check) and check.detail for check in checks)
    assert all(check.state is State.MISSING for check in checks if check.prevents_recording)
