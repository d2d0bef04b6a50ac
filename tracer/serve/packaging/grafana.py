"""The dashboard of Grafana for the metrics of `serve`.

Each query asks for families of `tracer.metric_families`; a name that is no family is a KeyError.
"""

from __future__ import annotations

import json
from string import ascii_uppercase
from typing import Any, Final

from tracer.metric_families import FAMILY_BY_NAME

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HOSTS: Final = 'instance=~"$instance"'
_CHOICES: Final = {"namespace": "Namespace", "pod": "Pod", "name": "Container", "id": "Path"}
"""Label of a cgroup -> the title of the variable that chooses among its values."""

_CHOSEN: Final = ", ".join((_HOSTS, *(f'{label}=~"${label}"' for label in _CHOICES)))
_MOST_SHOWN: Final = ("5", "10", "20", "100")
_OF_MOST: Final = "The chosen cgroups that came nearest to their limits."
_OF_ONE: Final = "It is about one cgroup: of the chosen ones, the nearest to its limit."
_NAME: Final = "{{namespace}} {{pod}} {{cgroup}}"
"""The legend of a query by `_named`."""


def text() -> str:
    """Return the dashboard as JSON."""
    return json.dumps(_dashboard(), indent=1) + "\n"


def _dashboard() -> dict[str, Any]:
    seen = _all("oom_kills_seen")
    kills = {
        "name": "OOM kills",
        "enable": True,
        "iconColor": "red",
        "datasource": _SOURCE,
        "expr": f"sum by (name, pod) ({seen}) - sum by (name, pod) ({seen} offset 1m) > 0",
        "titleFormat": "OOM kill",
        "textFormat": "{{pod}} {{name}}",
        "step": "60s",
    }
    return {
        "title": "Memory cgroups (memcg-tracer)",
        "uid": "memcg-tracer",
        "tags": ["memory", "cgroup", "memcg-tracer"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": [kills]},
        "templating": {"list": _variables()},
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(), 1)],
    }


def _variables() -> list[dict[str, Any]]:
    hosts = FAMILY_BY_NAME["tracer_cpu_seconds"].sample_name
    shown = [{"text": most, "value": most, "selected": most == _MOST_SHOWN[0]} for most in _MOST_SHOWN]
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
        | {"current": {}},
        _choice("instance", "Host", hosts),
        *(_choice(label, title, _all("usage_bytes")) for label, title in _CHOICES.items()),
        {
            "name": "most",
            "label": "Most shown",
            "type": "custom",
            "query": ",".join(_MOST_SHOWN),
            "current": {"text": _MOST_SHOWN[0], "value": _MOST_SHOWN[0]},
            "options": shown,
        },
    ]


def _choice(label: str, title: str, metric: str) -> dict[str, Any]:
    """Return a variable that chooses among the values that a label of a metric has."""
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


# Queries


def _all(family: str) -> str:
    """Return the series of a family of the chosen hosts."""
    return f"{FAMILY_BY_NAME[family].sample_name}{{{_HOSTS}}}"


def _chosen(family: str) -> str:
    """Return the series of a family of the chosen cgroups."""
    return f"{FAMILY_BY_NAME[family].sample_name}{{{_CHOSEN}}}"


def _rate(series: str) -> str:
    return f"rate({series}[$__rate_interval])"


def _lately(series: str) -> str:
    return f"increase({series}[$__rate_interval])"


def _nearest(series: str, most: str) -> str:
    """Return the series of the chosen cgroups that came nearest to their limits in the time shown."""
    usage, limit = (
        f"max_over_time({_chosen(name)}[$__range] @ end())" for name in ("usage_bytes", "limit_bytes")
    )
    return f"{series} and on (instance, id) topk({most}, {usage} / {limit} or {usage} * 0)"


def _named(series: str) -> str:
    """Return series with a label `cgroup`: the name of the cgroup, else its path."""
    by_path = f'label_replace({series}, "cgroup", "$1", "id", "(.*)")'
    return f'label_replace({by_path}, "cgroup", "$1", "name", "(.+)")'


def _of_most(series: str) -> str:
    return _named(_nearest(series, "$most"))


def _of_one(series: str, by: str = "") -> str:
    """Return the sum of series of one cgroup, by a label: sums over a cgroup and one below would count
    twice."""
    return f"sum{f' by ({by}) ' if by else ''}({_nearest(series, '1')})"


# Panels


def _panel(
    head: tuple[str, str, int, int, int, int],
    description: str,
    *targets: tuple[str, str],
    is_stacked: bool = False,
    **of_targets: Any,
) -> dict[str, Any]:
    """Return a picture of series over time. `head` is its title, the unit, and x, y, width and height on the
    grid of 24 columns; `targets` are queries, each with the legend of its series."""
    title, unit, *place = head
    lines = {
        "fillOpacity": 60 if is_stacked else 10,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"group": "A", "mode": "normal" if is_stacked else "none"},
    }
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": _SOURCE,
        "gridPos": dict(zip("xywh", place, strict=True)),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": lines}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": letter, "datasource": _SOURCE, "expr": query, "legendFormat": legend, **of_targets}
            for letter, (query, legend) in zip(ascii_uppercase, targets, strict=False)
        ],
    }


def _table(panel: dict[str, Any]) -> dict[str, Any]:
    """Return a panel as a table of its values now."""
    defaults = {name: panel["fieldConfig"]["defaults"][name] for name in ("unit", "min")}
    return panel | {"type": "table", "fieldConfig": {"defaults": defaults, "overrides": []}, "options": {}}


def _panels() -> tuple[dict[str, Any], ...]:
    limit, kills = _all("limit_bytes"), _all("oom_kills")
    levels = ("usage", "limit", "cushion", "working_set", "swap")
    return (
        _table(
            _panel(
                ("OOM kills by cause", "short", 0, 0, 12, 8),
                "Kills in the time shown. They are counted when they are explained, and outlive their "
                "containers.",
                (f"sum by (namespace, pod, container, name, cause) (increase({kills}[$__range])) > 0", ""),
                format="table",
                instant=True,
            )
        ),
        _panel(
            ("OOM kills", "short", 12, 0, 12, 8),
            "Each step is a kill. Exemplars name the trace: memcg-tracer explain tells what happened.",
            (f"sum by (namespace, pod, name, cause) ({kills})", "{{namespace}} {{pod}} {{name}} {{cause}}"),
            exemplar=True,
        ),
        _panel(
            ("Nearest to their limits", "percentunit", 0, 8, 12, 8),
            "Usage as a share of the limit. At 100 % nothing need be wrong: page cache fills any limit.",
            (_named(f"topk(10, {_all('usage_bytes')} / {limit})"), _NAME),
        ),
        _panel(
            ("Least cushion", "percentunit", 12, 8, 12, 8),
            "What can still be charged before a kill, as a share of the limit: this is what counts.",
            (_named(f"bottomk(10, {_all('cushion_bytes')} / {limit})"), _NAME),
        ),
        _panel(
            ("Usage, limit and cushion", "bytes", 0, 16, 12, 9),
            "Usage with everything below the cgroup; the least limit of the cgroup and all above it. "
            f"{_OF_MOST}",
            *((_of_most(_chosen(f"{name}_bytes")), f"{name.replace('_', ' ')} {_NAME}") for name in levels),
        ),
        _panel(
            ("What usage is made of", "bytes", 12, 16, 12, 9),
            f"The kinds do not overlap. Choose one cgroup. {_OF_ONE}",
            (_of_one(_chosen("memory_bytes"), "kind"), "{{kind}}"),
            is_stacked=True,
        ),
        _panel(
            ("Time to a kill", "s", 0, 25, 12, 7),
            f"When the cushion will be used up at the present rate. Empty: no kill is in sight. {_OF_MOST}",
            (_of_most(_chosen("seconds_to_kill")), _NAME),
        ),
        _panel(
            ("Pressure", "percentunit", 12, 25, 12, 7),
            f"Share of the time in which some or all tasks waited for memory. {_OF_MOST}",
            (_of_most(_rate(_chosen("pressure_seconds"))), f"{{{{kind}}}} {_NAME}"),
        ),
        _panel(
            ("Page cache in", "Bps", 0, 32, 8, 8),
            f"Added, by what brought it in. {_OF_ONE}",
            (_of_one(_rate(_chosen("pagecache_added_bytes")), "cause"), "{{cause}}"),
            is_stacked=True,
        ),
        _panel(
            ("Page cache out", "Bps", 8, 32, 8, 8),
            f"Evicted, by the kind of reclaim; and what was read again after its eviction. {_OF_ONE}",
            (_of_one(_rate(_chosen("pagecache_evicted_bytes")), "cause"), "{{cause}}"),
            (_of_one(_rate(_chosen("refaulted_bytes"))), "read again"),
        ),
        _panel(
            ("Reclaim", "ops", 16, 32, 8, 8),
            f"Attempts that freed something, and attempts that freed nothing. {_OF_ONE}",
            (_of_one(_rate(_chosen("reclaim_attempts")), "outcome"), "{{outcome}}"),
        ),
        _panel(
            ("Tasks in reclaim", "s", 0, 40, 12, 7),
            f"Time that tasks spent in reclaim in each second, summed over the tasks. {_OF_MOST}",
            (_of_most(_rate(_chosen("reclaim_stall_seconds"))), _NAME),
        ),
        _panel(
            ("The tracer", "short", 12, 40, 12, 7),
            "Its CPU, lost records, and cgroups that --max-series left out.",
            (_rate(_all("tracer_cpu_seconds")), "CPU {{instance}}"),
            (f"sum by (stream) ({_lately(_all('lost_records'))})", "lost {{stream}}"),
            (_all("cgroups_left_out"), "cgroups left out"),
            (f"sum by (result) ({_lately(_all('pod_events'))})", "events of pods {{result}}"),
        ),
        _panel(
            ("SIGKILL by others than the OOM killer", "short", 0, 47, 24, 7),
            "Each step is a process that SIGKILL ended, by the sender. memcg-tracer watch prints each one "
            "with the parents of the sender.",
            (
                f"sum by (namespace, pod, name, sender) ({_all('sigkills')})",
                "{{namespace}} {{pod}} {{name}} {{sender}}",
            ),
        ),
    )
