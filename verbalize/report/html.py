"""One self-contained HTML file from `ReportData`: nothing loaded, nothing sent, nothing of the data executed.

Two fences against hostile titles: Jinja's autoescape with `visible` applied to every string, and a content-security
policy that allows only our own style and script, by their hashes. Markup is trusted from `figures` and `plots` alone,
which escape the labels they are given.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from verbalize.report.browser_rows import browser_parts
from verbalize.report.catalogue import catalogue_view
from verbalize.report.data import ENOUGH, ReportData
from verbalize.report.text import visible
from verbalize.report.trait_views import trait_groups
from verbalize.report.views import (
    arm_rows,
    chart_views,
    claim_views,
    comparison_rows,
    look_rows,
    slice_views,
    tradeoff_view,
)

_SECTIONS = [
    ("runs", "runs", "Runs"),
    ("sweep", "sweep", "Sweep"),
    ("claims", "headline", "Results"),
    ("arms", "arms", "Arms"),
    ("tradeoff", "tradeoff", "Accuracy and length"),
    ("comparisons", "comparisons", "Comparisons"),
    ("catalogue", "catalogue", "Whole catalogue"),
    ("traits", "texts", "Texts"),
    ("charts", "training", "Training"),
    ("slices", "slices", "Slices"),
    ("examples", "examples", "Examples"),
    ("looks", "looks", "Looks"),
]


def render_html(data: ReportData) -> str:
    """The whole report as one HTML document. The same data gives the same bytes."""
    return render_page(data)


def render_page(
    data: ReportData, extra: Mapping[str, Any] | None = None, lead: str = "", notes: Sequence[str] = ()
) -> str:
    """A report with the parts of `extra` before its own sections: `sweep` (`sweep_views`) or `runs` (`sets`).

    `lead` stands for the subtitle where one is given; `notes` come before the data's own.
    """
    css, js = _asset("report.css"), _asset("report.js")
    parts: dict[str, Any] = {
        "runs": None,
        "sweep": None,
        "claims": claim_views(data),
        **arm_rows(data),
        "tradeoff": tradeoff_view(data),
        **comparison_rows(data),
        "catalogue": catalogue_view(data),
        "traits": trait_groups(data),
        **chart_views(data),
        **slice_views(data),
        **browser_parts(data),
        "looks": look_rows(data),
        **(extra or {}),
    }
    sections = [(anchor, name) for key, anchor, name in _SECTIONS if parts[key]]
    sections += [("provenance", "Provenance")] if data.provenance else []
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            data=data,
            lead=lead or data.subtitle,
            notes=[*notes, *data.notes],
            sections=sections,
            enough=f"{ENOUGH:,}",
            policy=content_security_policy(css, js),
            css=Markup(css),
            js=Markup(js),
            **parts,
        )
    )


def content_security_policy(css: str, js: str) -> str:
    """Nothing but this style and this script, both by sha256."""
    return (
        f"default-src 'none'; style-src 'sha256-{_sha256(css)}'; script-src 'sha256-{_sha256(js)}'; "
        "img-src 'none'; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return (files("verbalize.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """Strings from data lose their control characters before they are escaped; Markup is ours and passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
