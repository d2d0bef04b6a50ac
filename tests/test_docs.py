"""The documents: their links and file names exist, and their commands print the output shown."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tracer.cli.group import VERBS, group
from tracer.render.plot.pictures import Pictures
from tracer.version import VERSION

TOP = Path(__file__).parents[1]
DOCUMENTS = sorted([TOP / "README.md", *TOP.glob("docs/**/*.md")])
EXAMPLES = sorted(TOP.glob("docs/examples/*.md"))
FAQ = TOP / "docs/faq.md"
RECORDED = "traces/page-cache"
LOGS = "tests/kernel/kmsg/corpus"
LEFT_OUT = "…"
WITHOUT_TRACE = ("memcg-tracer lab --list",)


@pytest.fixture
def in_a_folder_with_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a temporary folder with the recorded example: commands write nothing into the checkout."""
    (tmp_path / "traces").mkdir()
    for path in (RECORDED, "traces/thrash", "tests"):
        (tmp_path / path).symlink_to(TOP / path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_of_a_document_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_source_files_named_in_a_document_exist(document: Path) -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|c|h|sh|toml|tsv))`", document.read_text())
    missing = [
        name for name in named if not any((folder / name).exists() for folder in (TOP, TOP / "tracer"))
    ]
    assert [name for name in missing if "NAME" not in name] == []


def test_picture_of_the_rooms_equals_the_one_drawn_from_the_code() -> None:
    rooms = runpy.run_path(str(TOP / "docs/rooms.py"))
    drawn = (TOP / "docs/rooms.svg").read_text()
    assert drawn == rooms["svg"](rooms["layers"]()), "`.venv/bin/python docs/rooms.py` draws it again"


def test_pictures_of_a_trace_are_all_drawn_for_the_documents() -> None:
    plots = runpy.run_path(str(TOP / "docs/plots.py"))
    methods = {name for name, member in vars(Pictures).items() if callable(member) and name[0] != "_"}
    assert set(plots["PICTURES"]) == methods
    assert {plots["path_of"](name) for name in methods} == set((TOP / "docs").glob("plot-*.svg"))
    page = (TOP / "docs/examples/pandas.md").read_text()
    assert all(f"t.plot.{name}()" in page and f"](../plot-{name}.svg)" in page for name in methods)


def test_every_document_is_in_the_index() -> None:
    index = (TOP / "docs/README.md").read_text()
    linked = {(TOP / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index)}
    chapters = {path for path in TOP.glob("docs/*.md") if path.name != "README.md"}
    assert linked >= chapters | {*TOP.glob("docs/design/*.md"), *TOP.glob("docs/deploy/*.md")}


def test_make_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(code_of((TOP / "README.md").read_text()))))
    assert named
    assert named <= targets


def test_readme_installs_the_files_of_a_release() -> None:
    """The tools that make them name them by the version: dpkg-deb, `make release`, and pip (PEP 427)."""
    readme, recipe = (TOP / "README.md").read_text(), (TOP / "Makefile").read_text()
    named = {
        f"memcg-tracer_{VERSION}_amd64.deb",
        f"memcg-tracer_{VERSION}.image.tar",
        f"memcg_tracer-{VERSION}-py3-none-any.whl",
    }
    shown = re.findall(r"\bmemcg[-_]tracer[-_]\d[\w.+-]*", "\n".join(code_of(readme)))
    assert set(shown) == named
    assert "image=memcg-tracer_$$version.image.tar" in recipe
    assert "build/deb/memcg-tracer_$${version}_*.deb" in recipe


def test_verbs_all_have_a_page_of_examples() -> None:
    pages = {page.stem for page in EXAMPLES}
    assert pages == {*VERBS, "pandas", "README"}
    listed = re.findall(r"\]\((\w+)\.md\)", (TOP / "docs/examples/README.md").read_text())
    assert sorted(listed) == sorted(pages - {"README"})


@pytest.mark.usefixtures("in_a_folder_with_the_example")
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda path: path.stem)
def test_commands_on_the_recorded_example_print_what_is_shown(page: Path) -> None:
    for command, shown in commands_of(page.read_text()):
        if not can_run_anywhere(command):
            continue
        printed = run(command)
        if "|" not in command:
            assert_shows(printed, shown)


@pytest.mark.usefixtures("in_a_folder_with_the_example")
@pytest.mark.parametrize("verb", VERBS)
def test_commands_in_the_help_run(verb: str) -> None:
    command = group.get_command(None, verb)  # type: ignore[arg-type]
    assert command is not None and command.epilog
    examples = [line.strip() for line in command.epilog.splitlines() if "memcg-tracer" in line]
    assert examples
    for example in filter(can_run_anywhere, examples):
        run(example)


@pytest.mark.usefixtures("in_a_folder_with_the_example")
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda path: path.stem)
def test_python_in_the_examples_runs(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    exec("\n".join(blocks), {})


def test_faq_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands read any trace and any log of the repository; those that read others are not run."""
    for folder in ("traces", "tests"):
        (tmp_path / folder).symlink_to(TOP / folder)
    monkeypatch.chdir(tmp_path)
    text = FAQ.read_text()
    compared = 0
    for command, shown in commands_of(text):
        if "traces/" in command or f" {LOGS}/" in command:
            assert_shows(run(command), shown)
            compared += 1
    assert compared >= 8
    for code, shown_text in re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, flags=re.DOTALL):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, {})
        assert out.getvalue() == shown_text
        compared += 1
    assert compared >= 9


def test_eight_questions_in_python_are_answered_in_three_lines_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    for name in ("anon", "page-cache", "thrash"):
        (tmp_path / "traces" / name).symlink_to(TOP / "traces" / name)
    monkeypatch.chdir(tmp_path)
    before, _, after = (TOP / "docs/examples/pandas.md").read_text().partition("## Eight questions\n")
    known: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", before, flags=re.DOTALL)), known)
    section = after.partition("\n## ")[0]
    answers = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", section, flags=re.DOTALL)
    assert len(answers) == section.count("?**") == 8
    for code, shown in answers:
        assert len(code.splitlines()) <= 3
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, known)
        assert out.getvalue() == shown


def test_faq_lists_its_questions() -> None:
    text = FAQ.read_text()
    asked = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    listed = re.findall(r"^\* \[(.*?)\]\(#(.*?)\)$", text, flags=re.MULTILINE)
    assert [question for question, _ in listed] == asked
    for question, anchor in listed:
        assert anchor == re.sub(r"[^\w -]", "", question.lower()).replace(" ", "-")


def test_faq_has_each_way_to_limit_page_cache_of_a_measured_cgroup_version() -> None:
    ways = runpy.run_path(str(TOP / "docs/cache_limits.py"))["WAYS"]
    places = re.findall(r"<!-- cache limits: v(\d) -->\n(.*?)<!-- end -->", FAQ.read_text(), re.DOTALL)
    assert [version for version, _ in places] == ["1", "2"]
    measured = {version: table for version, table in places if table}
    assert measured
    for version, table in measured.items():
        rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][1:]
        assert rows == [f"| {way.words}" for way in ways if way.least_version <= int(version)]


def test_checks_of_documents_compare_commands_and_can_fail() -> None:
    compared = [
        command
        for page in EXAMPLES
        for command, shown in commands_of(page.read_text())
        if shown and can_run_anywhere(command)
    ]
    assert len(compared) >= 8
    with pytest.raises(AssertionError):
        assert_shows("a\nb\nc\n", ["a", "c"])
    with pytest.raises(AssertionError):
        assert_shows("a\nb\nc\n", ["b", LEFT_OUT, "a"])
    assert_shows("a\nb\nc\n", ["a", LEFT_OUT, "c"])


def code_of(text: str) -> list[str]:
    """Return the code in a Markdown text: between fences, and between backticks."""
    fenced = re.findall(r"```.*?```", text, flags=re.DOTALL)
    return fenced + re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each `$ memcg-tracer ...` between fences, and the lines shown below it."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    for block in (block for language, block in blocks if not language):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = session.splitlines()
            if command.startswith("memcg-tracer "):
                yield command, shown


def can_run_anywhere(command: str) -> bool:
    """Return whether a command reads no trace but the recorded example, or a log of the tests."""
    traces = set(re.findall(r"traces/[\w.<>-]+", command))
    return command in WITHOUT_TRACE or f" {LOGS}/" in command or traces == {RECORDED}


def run(command: str) -> str:
    """Run a command up to a pipe or redirection, and return its output; it must succeed."""
    return printed_by(re.split(r" [|>] ", command)[0])


@cache
def printed_by(command: str) -> str:
    """Run a command. Pages and helps show the same ones, and all of them read what no test changes."""
    program, *arguments = shlex.split(command)
    assert program == "memcg-tracer"
    result = CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"{command}: {result.output}"
    return result.stdout


def assert_shows(printed: str, shown: list[str]) -> None:
    """Assert that the shown lines are printed one below the other, in order around each `LEFT_OUT`."""
    rest = printed.splitlines()
    for piece in "\n".join(shown).split(f"\n{LEFT_OUT}"):
        lines = [line for line in piece.removeprefix(LEFT_OUT).strip("\n").split("\n") if piece.strip()]
        starts = [at for at in range(len(rest)) if rest[at : at + len(lines)] == lines]
        assert starts, f"not printed, or not in this order: {lines}"
        rest = rest[starts[0] + len(lines) :]
