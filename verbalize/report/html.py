"""One self-contained HTML file from `ReportData`: nothing loaded, nothing sent, nothing of the data executed.

Two fences against hostile titles: Jinja's autoescape with `visible` applied to every string, and a content-security
policy that allows only our own style and script, by their hashes. Markup is trusted from `figures` alone, which escapes
the labels it is given.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from verbalize.report.data import ENOUGH, ReportData
from verbalize.report.text import visible
from verbalize.report.views import (
    arm_rows,
    chart_views,
    claim_views,
    comparison_rows,
    example_rows,
    look_rows,
    slice_views,
)

_SECTIONS = [
    ("claims", "headline", "Results"),
    ("arms", "arms", "Arms"),
    ("comparisons", "comparisons", "Comparisons"),
    ("charts", "training", "Training"),
    ("slices", "slices", "Slices"),
    ("examples", "examples", "Examples"),
    ("looks", "looks", "Looks"),
]


def render_html(data: ReportData) -> str:
    """The whole report as one HTML document. The same data gives the same bytes."""
    folder = files("verbalize.report")
    css, js = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html.jinja").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {
        "claims": claim_views(data),
        **arm_rows(data),
        **comparison_rows(data),
        **chart_views(data),
        **slice_views(data),
        "examples": example_rows(data),
        "looks": look_rows(data),
    }
    sections = [(anchor, name) for key, anchor, name in _SECTIONS if parts[key]]
    sections += [("provenance", "Provenance")] if data.provenance else []
    return template.render(
        data=data,
        sections=sections,
        enough=f"{ENOUGH:,}",
        policy=content_security_policy(css, js),
        css=Markup(css),
        js=Markup(js),
        **parts,
    )


def content_security_policy(css: str, js: str) -> str:
    """Nothing but this style and this script, both by sha256."""
    return (
        f"default-src 'none'; style-src 'sha256-{_sha256(css)}'; script-src 'sha256-{_sha256(js)}'; "
        "img-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """Strings from data lose their control characters before they are escaped; Markup is ours and passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
