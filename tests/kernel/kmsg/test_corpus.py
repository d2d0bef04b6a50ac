"""The facts in logs of many kernels, distributions and log daemons, which a person has checked."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from support.golden import compare

from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

CORPUS = Path(__file__).parent / "corpus"
EXPECTED = ".expected.json"
LOGS = sorted(path for path in CORPUS.glob("*-*") if not path.name.endswith(EXPECTED))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_log_of_corpus_has_expected_facts(log: Path, request: pytest.FixtureRequest) -> None:
    found = [objects(report) for report in reports(split([log.read_bytes()]))]
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    compare(log.with_name(log.name + EXPECTED), text, request.node.nodeid)


def test_corpus_has_twelve_kernels_or_distributions() -> None:
    assert len({"-".join(path.name.split("-")[1:3]) for path in LOGS}) >= 12


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_log_in_random_chunks_has_same_facts(log: Path) -> None:
    data = log.read_bytes()
    whole = list(split([data]))
    assert list(split(data[at : at + 7] for at in range(0, len(data), 7))) == whole


NOISE = (
    "IPv6: ADDRCONF(NETDEV_CHANGE): veth1: link becomes ready",
    "audit: type=1400 audit(1700000000.123:45): apparmor=DENIED operation=open",
    "usb 1-1: new high-speed USB device number 5 using xhci_hcd",
    "BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 30s!",
    "CPU: 3 PID: 99 Comm: kworker/3:1 Tainted: G        W          6.1.0 #1",
    "[drm] GPU HANG: ecode 9:1:85dffffb",
    "memory hotplug: online",
    "swap: compressed pages",
    "Killed process",
    "out of memory in a driver of ours",
)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("captured-6.1-debian12-v2-kmsg.log", "4,9,{since_boot_us},-;"),
        ("captured-6.18-v1-kmsg.log", "4,9,{since_boot_us},-;"),
        ("written-5.10-debian11-v2-rfc3339.log", "2024-10-12T19:00:20.400000+02:00 aks-node-1 kernel: "),
        ("written-4.19-debian10-v1-kern.log", "Mar  4 02:11:15 web-3 kernel: [881240.402500] "),
    ],
)
def test_log_with_other_lines_has_same_facts(name: str, prefix: str) -> None:
    lines = list(split([(CORPUS / name).read_bytes()]))
    chance = random.Random(name)
    noisy: list[str] = []
    for line in lines:
        noisy.append(line)
        since_boot_us = line.split(",")[2] if ";" in line and line[0].isdigit() else "0"
        noise = chance.choices(NOISE, k=chance.choice((0, 0, 1, 3)))
        noisy += [prefix.format(since_boot_us=since_boot_us) + words for words in noise]
    assert [without_lines(one) for one in reports(noisy)] == [without_lines(one) for one in reports(lines)]
    assert len(noisy) > 1.5 * len(lines)


def without_lines(value: Any) -> Any:
    """Return the facts without their lines in the log."""
    return objects(value, without=("line", "last_line"))


def objects(value: Any, without: tuple[str, ...] = ()) -> Any:
    """Return records as objects of JSON, without the fields of these names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        named = value._asdict()
    elif isinstance(value, dict):
        named = value
    else:
        return [objects(one, without) for one in value] if isinstance(value, tuple) else value
    return {name: objects(one, without) for name, one in named.items() if name not in without}
