"""The pod whose limit a cgroup has, and the command that resizes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.recorded import TRACES
from support.schemas import require_form

from tracer.analysis.core import naming
from tracer.analysis.results.outcome import PodLimit
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import what_if
from tracer.analysis.whatif.pod_resize import command, pod_limit, quantity

MIB = 1 << 20
UID, ID = "1d65f9b6-7e8d-4a6c-9a0c-7a6c2f1b9e11", "4f" * 32
POD = f"/kubepods/burstable/pod{UID}"
NAMES: dict[str, str | None] = {"namespace": "shop", "pod": "web-0", "container": "app", "container_id": ID}


def in_pod(folder: Path, path: str, names: Mapping[str, str | None]) -> AnalysedTrace:
    """Return a recorded example whose cgroup has this path and these names."""
    shutil.copytree(TRACES / "thrash", folder / "thrash")
    file = folder / "thrash/cgroups.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    for row in rows:
        if row["path"].endswith("lab-thrash"):
            row |= {"path": path, **names}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return AnalysedTrace(folder / "thrash")


@pytest.mark.parametrize(
    ("path", "names", "found"),
    [
        (f"{POD}/{ID}", NAMES, PodLimit("shop", "web-0", "app", "Burstable")),
        (f"/kubepods/pod{UID}/{ID}", NAMES, PodLimit("shop", "web-0", "app", "Guaranteed")),
        (
            POD,
            NAMES | {"container": None, "container_id": None},
            PodLimit("shop", "web-0", None, "Burstable"),
        ),
        (f"{POD}/{ID}/init.scope", NAMES, None),
        (f"/kubepods/burstable/pod{'1d65f9b6' * 4}/{ID}", NAMES, None),  # a static pod
        (f"{POD}/{ID}", NAMES | {"container": None}, None),
        (f"{POD}/{ID}", NAMES | {"namespace": None}, None),
        (f"/docker/{ID}", NAMES, None),
        (f"{POD}/{ID}", NAMES | {"pod": "web';touch x;'"}, None),
        (f"{POD}/{ID}", NAMES | {"pod": "--all"}, None),
        (f"{POD}/{ID}", NAMES | {"namespace": "$(touch x)"}, None),
        (f"{POD}/{ID}", NAMES | {"container": 'a"}]}}'}, None),
        (f"{POD}/{ID}", NAMES | {"container": "a\n"}, None),
        (f"{POD}/{ID}", NAMES | {"container": "a" * 64}, None),
    ],
)
def test_pod_is_known_if_all_names_are_and_kubernetes_accepts_them(
    tmp_path: Path, path: str, names: dict[str, str | None], found: PodLimit | None
) -> None:
    trace = in_pod(tmp_path, path, names)
    (number,) = naming.select(trace, path)
    assert pod_limit(trace, number) == found


def test_answer_has_the_command_of_each_limit_that_may_be_enough(tmp_path: Path) -> None:
    answer = what_if(in_pod(tmp_path, f"{POD}/{ID}", NAMES), [5 * MIB, 60 * MIB])
    assert answer.pod_limit == PodLimit("shop", "web-0", "app", "Burstable")
    killed, survives = answer.limits
    assert (killed.outcome, killed.resize) == ("killed", None)
    assert (survives.outcome, survives.resize) == ("survives", command(answer.pod_limit, 60 * MIB))
    assert answer.peak_usage_bytes == 40 * MIB
    document = {"schema": 1, "trace": "thrash", **answer.to_dict()}
    require_form("whatif", json.loads(json.dumps(document)))


def test_guaranteed_pod_keeps_its_class() -> None:
    words = command(PodLimit("shop", "web-0", "app", "Guaranteed"), 300 * MIB)
    assert words is not None
    resources = {"requests": {"memory": "300Mi"}, "limits": {"memory": "300Mi"}}
    assert json.loads(words[-1]) == {"spec": {"containers": [{"name": "app", "resources": resources}]}}
    assert command(PodLimit("shop", "web-0", "app", "BestEffort"), 300 * MIB) is None


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(2 << 30, "2Gi"), (300 * MIB, "300Mi"), (1536 << 10, "1536Ki"), (314_572_801, "314572801")],
)
def test_quantity_is_exact(size_bytes: int, text: str) -> None:
    assert quantity(size_bytes) == text
