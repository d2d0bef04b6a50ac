"""`tracer.open` on a trace that was written to disk."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import tracer
from tracer import UsageError, analysis
from tracer.analysis.explain.postmortem import explain
from tracer.render.plot.opened_trace import OpenedTrace
from tracer.schema import TABLES
from tracer.trace import meta
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter


@pytest.fixture
def path(page_cache_experiment: Any, tmp_path: Path) -> Path:
    described = meta.begin(command_line=["record"], cgroup_version=1, filters={}, probes={"oom": "hook"})
    writer = TraceWriter(tmp_path / "trace", described | {"page_size": 4096}, force=False)
    for name, rows in page_cache_experiment.recorded().items():
        writer.append(name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    writer.close("test")
    return tmp_path / "trace"


def test_open_gives_the_tables_that_were_written(page_cache_experiment: Any, path: Path) -> None:
    opened = tracer.open(path)
    (written,) = opened.explain()
    page_cache_experiment.meta |= {name: opened.meta[name] for name in ("cgroup_version", "memory")}
    (direct,) = explain(page_cache_experiment)
    assert written.to_dict() | {"quality": None} == direct.to_dict() | {"quality": None}
    assert opened.timeline(cgroup="web", every="1s")["cache_evicted_bytes"].sum() == 116 << 20
    assert opened.held()["cgroup"].tolist() == ["/docker/4f2a"]
    assert set(opened.with_names(opened.pagecache)["comm"]) == {"python3"}


def test_open_without_a_trace_fails_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(tracer.TraceError) as refusal:
        tracer.open(tmp_path)
    assert "\n" not in str(refusal.value)


def test_import_of_the_package_does_not_load_pandas() -> None:
    """The recorder imports the package, and must not spend time on pandas and pyarrow."""
    script = "import sys, tracer; sys.exit(any(name in sys.modules for name in ('pandas', 'pyarrow', 'bcc')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


PUBLIC = tuple(name for name in vars(OpenedTrace) if name[0] != "_")
"""What `t` has besides its tables."""


def listed_names() -> list[str]:
    """Return the names of methods and attributes that the table of docs/examples/pandas.md lists."""
    document = (Path(tracer.__file__).parents[1] / "docs/examples/pandas.md").read_text()
    table = document.partition("| method or attribute |")[2].partition("\n\n")[0]
    return re.findall(r"`t\.(\w+)", "".join(row.split("|")[1] for row in table.splitlines()[2:]))


def test_names_without_an_underscore_are_the_documented_ones(path: Path) -> None:
    opened = tracer.open(path)
    tables = [getattr(opened, name) for name in TABLES]
    assert len(tables) == len(TABLES) and opened.waits is not None and opened.explain()
    documented = {*TABLES, *listed_names()}
    assert len(listed_names()) == len(set(listed_names()))
    for names in (dir(opened), dir(type(opened)), [*vars(opened), *documented]):
        assert {name for name in names if name[0] != "_"} == documented


def test_table_is_read_once_for_its_user_and_for_the_analyses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, table = Counter[str](), Trace.table

    def counted(trace: Trace, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        read[name] += columns is None
        return table(trace, name, columns)

    monkeypatch.setattr(Trace, "table", counted)
    opened = tracer.open(path)
    assert opened.samples is opened.samples
    opened.explain()
    opened.held()
    assert opened.cgroups is not None
    assert read["samples"] == read["cgroups"] == 1


def test_methods_show_the_shape_of_what_they_return_and_an_example() -> None:
    assert {"kills", "table", "with_names"} <= set(PUBLIC)
    for name in PUBLIC:
        text = inspect.getdoc(inspect.getattr_static(OpenedTrace, name)) or ""
        assert text.startswith("Return "), name
        is_plain = name in ("path", "interrupted", "size_bytes")
        assert is_plain or "\n\n    " in text, f"{name} shows no example"


def test_names_that_the_documents_use_are_public(path: Path) -> None:
    root = Path(tracer.__file__).parents[1]
    used = set()
    for document in (root / "README.md", *(root / "docs").rglob("*.md")):
        for code in re.findall(
            r"^```python\n(.*?)^```|`(t\.[^`]*)`", document.read_text(), flags=re.M | re.S
        ):
            used |= set(re.findall(r"(?<![\w.])t\.(\w+)", "".join(code)))
    assert {"code", "whatif", "sigkilled", "kills", "plot"} <= used
    assert used - set(dir(tracer.open(path))) == set()


def test_help_of_a_trace_names_what_follows_from_it_before_the_tables(path: Path) -> None:
    text = inspect.getdoc(tracer.open(path)) or ""
    answers = text[: text.index("The tables:")]
    assert "t.kills()\n  the kills as a row for each victim" in answers
    assert "t.waits\n" in answers
    for name in PUBLIC:
        assert re.search(rf"^t\.{name}(\(\))?$", answers, flags=re.M), name


def test_help_that_a_docstring_names_exists(path: Path) -> None:
    named = [
        name
        for public in PUBLIC
        for name in re.findall(
            r'`help\("([\w.]+)"\)`',
            inspect.getdoc(inspect.getattr_static(type(tracer.open(path)), public, None)) or "",
        )
    ]
    assert "tracer.analysis.results.report_frames.kills" in named
    assert [name for name in named if not (inspect.getdoc(pydoc.locate(name)) or "")] == []


def test_examples_of_the_public_names_run(path: Path) -> None:
    opened = tracer.open(path)
    ran = []
    for name in PUBLIC:
        text = inspect.getdoc(inspect.getattr_static(type(opened), name, None)) or ""
        for code in re.findall(r"^    (?=\S)(.*t\..*)$", text, flags=re.MULTILINE):
            if name != "charged_stacks" and ".plot" not in code:
                eval(code, {"t": opened})
                ran.append(name)
    assert {"explain", "kills", "kill_window", "held", "evictions", "refaults", "lost_time"} <= set(ran)


def test_package_lists_its_public_names_only() -> None:
    assert dir(tracer) == sorted(tracer.__all__)


def test_what_was_read_again_has_the_name_that_people_see(path: Path) -> None:
    opened = tracer.open(path)
    for frame, name in (
        (opened.timeline(every="1s"), "cache_refaulted_bytes"),
        (opened.evictions(), "returned_bytes"),
        (opened.held(), "refaulted_bytes"),
    ):
        pd.testing.assert_series_equal(frame["read_again_bytes"], frame[name], check_names=False)
    (kill,) = opened.explain()
    assert opened.kills()["read_again_bytes"].tolist() == [kill.cushion.refaulted_bytes]


def test_kill_has_the_time_from_its_limit(path: Path) -> None:
    kills = tracer.open(path).kills()
    waited: pd.TimedeltaIndex = kills.index - pd.DatetimeIndex(kills["limit_reached_at"])
    assert kills["limit_to_kill_ms"].tolist() == [waited[0] / pd.Timedelta("1ms")]
    assert kills["limit_to_kill_ms"].item() > 0


def test_names_of_ids_say_whose_they_are(path: Path) -> None:
    opened = tracer.open(path)
    named = opened.with_names(opened.reclaim)
    assert set(named["target_cgroup"]) == {"/docker/4f2a"} and set(named["target_container"]) == {"web"}
    assert "cgroup" not in named and "container" not in named
    assert "task_cgroup" in opened.with_names(opened.pagecache)


@pytest.mark.parametrize(
    "arguments",
    [
        {"every": "often"},
        {"every": "0s"},
        {"every": "1ns"},
        {"begin": 9, "end": 1},
        {"begin": "noon"},
        {"run": 3},
        {"cgroup": "/docker/4f2a", "run": 3},
    ],
    ids=str,
)
def test_errors_of_a_call_name_its_arguments_and_no_option(path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refusal:
        tracer.open(path).timeline(**arguments)
    assert not re.search(r"(?<!\w)--?[a-z]", str(refusal.value)), refusal.value


def test_no_error_of_the_analysis_names_an_option() -> None:
    """Words that were typed to record a trace may be named: `recorded with --stacks off`."""
    found = []
    for module in Path(analysis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
                said = " ".join(
                    str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant) and one.value
                )
                found += [said] if re.search(r"(?<![\w-])(?<!recorded with )--?[a-z]", said) else []
    assert found == []
