from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import TracerError
from tracer.kernel import features
from tracer.kernel.btf import Btf
from tracer.kernel.capabilities import Credentials
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerRef
from tracer.kernel.cgroups.mounts import Mount
from tracer.kernel.features import Check, State
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.host_names import HostNames

INITIAL = {"user": 0xEFFFFFFD, "pid": 0xEFFFFFFC, "cgroup": 0xEFFFFFFB}


def mount(fs_type: str, mount_point: str) -> Mount:
    return Mount(30, 20, (0, 30), "/", mount_point, fs_type, fs_type, frozenset())


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def credentials(held: int, user: int = 0) -> Credentials:
    return Credentials(user, held, hides_addresses=True, oom_score_adj=0, has_real_time=False)


@pytest.mark.parametrize(
    ("held", "state"),
    [
        (0, State.MISSING),
        (bits(39), State.MISSING),  # CAP_BPF alone reads no kernel memory
        (bits(38), State.MISSING),
        (bits(21), State.OK),
        (bits(38, 39), State.OK),
        (0x1FFFFFFFFFF, State.OK),
    ],
)
def test_permissions_follow_effective_capabilities(held: int, state: State) -> None:
    check = features.permissions(credentials(held))
    assert check.state is state
    assert check.prevents_recording is (state is State.MISSING)


def test_permissions_name_the_missing_capability_and_who_lacks_it() -> None:
    assert features.permissions(credentials(bits(39))).detail == "root lacks CAP_PERFMON"
    assert "--cap-add PERFMON" in features.permissions(credentials(bits(39))).remedy
    nobody = features.permissions(credentials(0, user=1000))
    assert (nobody.detail, nobody.remedy) == (
        "user 1000 lacks CAP_BPF and CAP_PERFMON",
        "run it as root (sudo)",
    )


def test_permissions_of_other_user_are_missing() -> None:
    check = features.permissions(credentials(0x1FFFFFFFFFF, user=1000))
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert "as user 1000" in check.detail


def test_each_missing_capability_is_a_line_with_its_cost() -> None:
    checks = {check.name: check for check in features.capabilities(credentials(bits(38, 39, 19)))}
    assert set(checks) == {
        *("CAP_SYSLOG", "CAP_DAC_READ_SEARCH", "CAP_SYS_RESOURCE", "CAP_SYS_NICE", "CAP_SYS_ADMIN")
    }
    assert {check.state for check in checks.values()} == {State.DEGRADED}
    assert "--cap-add SYSLOG," in checks["CAP_SYSLOG"].remedy
    assert features.capabilities(credentials(0)) == [], "nothing can be recorded, so nothing else matters"
    assert features.capabilities(credentials(0x1FFFFFFFFFF)) == []


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


@pytest.mark.parametrize("names", [(), ("memcg_flush_stats", "mm_vmscan_kswapd_wake")])
def test_tracepoints_that_no_signal_uses_are_named(names: tuple[str, ...]) -> None:
    class Newer(Btf):
        def __init__(self) -> None:
            pass

        def tracepoint(self, name: str) -> int | None:
            return 1 if name in names else None

    assert list(features.unread(TracerError("no BTF"))) == []
    shown = [check.detail for check in features.unread(Newer())]
    assert len(shown) == (1 if names else 0)
    assert all("memcg_flush_stats (when" in line and "kswapd_wake" not in line for line in shown)


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
    check = features.memory_controller(TracerError("boot with cgroup_enable=memory"), can_be_made=False)
    assert (check.state, check.prevents_recording) == (State.MISSING, True)
    assert "cgroup_enable=memory" in check.detail


def test_memory_controller_that_is_read_only_has_no_cgroups_for_commands() -> None:
    hierarchy = Hierarchy(2, Path("/sys/fs/cgroup"), "/")
    assert features.memory_controller(hierarchy, can_be_made=True).detail == "v2 at /sys/fs/cgroup"
    check = features.memory_controller(hierarchy, can_be_made=False)
    assert (check.state, check.prevents_recording) == (State.DEGRADED, False)
    assert "`record -- CMD`" in check.cost


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
def test_checks_not_ok_have_cost(held: int) -> None:
    for check in [features.permissions(credentials(held)), *features.capabilities(credentials(held))]:
        assert (check.state is State.OK) == (check.cost == "") == (check.remedy == "")


def test_examine_running_kernel_as_any_user() -> None:
    checks = features.examine()
    assert len({check.name for check in checks}) == len(checks)
    assert all(isinstance(check, Check) and check.detail for check in checks)
    assert all(check.state is State.MISSING for check in checks if check.prevents_recording)


def test_container_names_count_those_that_files_have(tmp_path: Path) -> None:
    refs = [ContainerRef("docker", digit * 64) for digit in "abc"]
    host = HostNames(HostFiles(tmp_path))
    assert features.container_names([], host).state is State.OK
    for number, ref in enumerate(refs):
        lacking = features.container_names(refs, host)
        assert (lacking.state, lacking.prevents_recording) == (State.DEGRADED, False)
        assert lacking.detail == f"{number} of 3 containers have names in files below {tmp_path}"
        assert "MEMCG_TRACER_HOST_ROOT" in lacking.remedy
        folder = tmp_path / "var/lib/docker/containers" / str(ref.container_id)
        folder.mkdir(parents=True)
        (folder / "config.v2.json").write_text('{"Name": "/web"}')
    assert features.container_names(refs, host).state is State.OK


def test_containers_of_a_hierarchy_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "docker" / ("a" * 64) / "init").mkdir(parents=True)
    (tmp_path / "system.slice" / "ssh.service").mkdir(parents=True)
    found = features._containers(Hierarchy(1, tmp_path, "/"))
    assert [ref.container_id for ref in found] == ["a" * 64]
    assert features._containers(TracerError("none")) == []
