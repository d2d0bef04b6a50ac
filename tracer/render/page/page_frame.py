"""The common parts of all pages: the style, templates that escape, and the hashes that a page allows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from tracer.categories import LAYERS
from tracer.render.page import chart
from tracer.render.words.prose import for_a_page

_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]+"
)


def style(more_colours: Iterable[tuple[str, str]] = ()) -> str:
    """Return the style sheet, with further colours of areas (name, colour)."""
    template = environment().from_string(source("report.css.j2"))
    return template.render(colours=[*chart.colours(), *more_colours], layers=[layer.name for layer in LAYERS])


def source_hash(text: str) -> str:
    """Return the source expression (CSP) by which a page allows this style or script, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def source(name: str) -> str:
    """Return a file of this folder."""
    return (resources.files("tracer.render.page") / name).read_text(encoding="utf-8")


@cache
def environment() -> jinja2.Environment:
    """Return the environment of all templates. They lie in this folder."""
    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(source),
        finalize=_laid_out,
    )


def _laid_out(value: Any) -> Any:
    """Return a text that breaks no number from its unit, with isolated right-to-left names, which do not
    change the order of the text around them.

    U+2068 and U+2069 enclose each such name. No name contains these characters: `visible` escapes them.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return _RIGHT_TO_LEFT.sub("\u2068\\g<0>\u2069", for_a_page(value))
    return value
