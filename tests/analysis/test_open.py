"""`tracer.open` on a trace that was written to disk."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import tracer
from tracer import UsageError, analysis
from tracer.analysis.explain.postmortem import explain
from tracer.render.plot.plotted_trace import PUBLIC
from tracer.schema import TABLES
from tracer.trace import meta
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
    assert [one.cgroup for one in opened.held_cgroups()] == ["/docker/4f2a"]
    assert set(opened.with_names(opened.pagecache)["comm"]) == {"python3"}


def test_open_without_a_trace_fails_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(tracer.TraceError) as refusal:
        tracer.open(tmp_path)
    assert "\n" not in str(refusal.value)


def test_import_of_the_package_does_not_load_pandas() -> None:
    """The recorder imports the package, and must not spend time on pandas and pyarrow."""
    script = "import sys, tracer; sys.exit(any(name in sys.modules for name in ('pandas', 'pyarrow', 'bcc')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_public_names_exist_and_show_their_shape_and_an_example(path: Path) -> None:
    opened = tracer.open(path)
    shown = [name for name in dir(opened) if name[0] != "_"]
    assert sorted(shown) == sorted(PUBLIC) and len(shown) == len(set(shown))
    assert [name for name in shown if not hasattr(opened, name) and name != "plot"] == []
    for name in PUBLIC[PUBLIC.index("with_names") : PUBLIC.index("plot")]:
        text = inspect.getdoc(inspect.getattr_static(type(opened), name))
        assert text and "\n\n    " in text, f"{name} shows no example"


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
    for name in PUBLIC[PUBLIC.index("with_names") : PUBLIC.index("plot")]:
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
