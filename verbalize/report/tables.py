"""A report's tables as files: CSV with full numbers for machines, LaTeX (booktabs) with rounded ones for papers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from verbalize.report.claims import format_number
from verbalize.report.data import CURVE_KEY, ReportData
from verbalize.report.text import one_line
from verbalize.report.views import bracket, claim_verdict, metric_name, percent, signed, three, tradeoff_rows

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
}


def frames_of(data: ReportData) -> dict[str, pl.DataFrame]:
    """File stem -> table, one value per cell: arms, tradeoff, comparisons, catalogue, claims, slices, texts, curves.
    Empty ones are left out.
    """
    curves = [
        frame.with_columns(series=pl.lit(name)).unpivot(index=["series", CURVE_KEY], variable_name="quantity")
        for name, frame in data.curves.items()
    ]
    found = {
        "arms": data.arms,
        "tradeoff": pl.DataFrame(tradeoff_rows(data)),
        "comparisons": pl.DataFrame([_comparison(shown) for shown in data.comparisons], infer_schema_length=None),
        "catalogue": data.catalogue,
        "claims": pl.DataFrame([_claim(claim) for claim in data.claims], infer_schema_length=None),
        "slices": data.slices,
        "texts": data.traits,
        "curves": pl.concat(curves, how="vertical_relaxed").drop_nulls("value") if curves else pl.DataFrame(),
    }
    return {name: _flat(frame) for name, frame in found.items() if not frame.is_empty()}


def latex_of(data: ReportData) -> dict[str, str]:
    """File stem -> LaTeX: `arms`, `comparisons` and `claims`, each a `tabular` to be put into a float of one's own."""
    found = {}
    if not data.arms.is_empty():
        found["arms"] = _arms(data)
    if data.comparisons:
        rows = [
            [
                shown.label,
                metric_name(shown.comparison.metric),
                (percent if shown.comparison.relative else signed)(shown.comparison.value),
                _ends(shown.comparison.low, shown.comparison.high, percent if shown.comparison.relative else signed),
                f"{shown.comparison.n_effective:,.0f}",
                three(shown.p_holm),
                shown.verdict,
            ]
            for shown in data.comparisons
        ]
        header = ["Comparison", "Metric", "Difference", "95% interval", "Effective n", "p (Holm)", "Reading"]
        found["comparisons"] = tabular(header, rows, "llrrrrl")
    if data.claims:
        rows = [
            [claim.statement, "–", "–", claim_verdict(claim)]
            if claim.value is None
            else [
                claim.statement,
                format_number(claim.value, claim.unit),
                _ends(claim.low, claim.high, lambda value, unit=claim.unit: format_number(value, unit)),
                claim_verdict(claim),
            ]
            for claim in data.claims
        ]
        found["claims"] = tabular(["Claim", "Value", "95% interval", "Target"], rows, "p{0.45\\linewidth}rrl")
    return found


def tabular(header: Sequence[str], rows: Sequence[Sequence[str]], columns: str) -> str:
    r"""A booktabs `tabular`; every cell is escaped.

    >>> print(tabular(["arm", "n"], [["keep_all", "12"]], "lr"))
    % needs \usepackage{booktabs}
    \begin{tabular}{lr}
    \toprule
    arm & n \\
    \midrule
    keep\_all & 12 \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    lines = [" & ".join(map(latex, row)) + r" \\" for row in (header, *rows)]
    body = [lines[0], r"\midrule", *lines[1:]]
    parts = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}", ""])


def latex(text: str) -> str:
    """A cell's text with LaTeX's special characters written out, control characters made visible, on one line."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda match: _SPECIAL[match.group()], one_line(text))


def _arms(data: ReportData) -> str:
    metrics = data.arms["metric"].unique(maintain_order=True).to_list()
    values = {(r["verbalizer"], r["recommender"], r["metric"]): r for r in data.arms.iter_rows(named=True)}
    first = metrics[0]
    keys = [key[:2] for key in sorted(values, key=lambda k: -values[k]["value"]) if key[2] == first]
    rows = []
    for verbalizer, recommender in keys:
        row = values[verbalizer, recommender, first]
        tokens = data.tokens.get(verbalizer)
        rows.append(
            [
                verbalizer,
                recommender,
                three(row["value"]),
                bracket(row["low"], row["high"]),
                *(three(values[verbalizer, recommender, metric]["value"]) for metric in metrics[1:]),
                "–" if tokens is None else f"{tokens:,.0f}",
                f"{row['n_effective']:,.0f}",
            ]
        )
    names = [metric_name(metric) for metric in metrics[1:]]
    header = ["Text", "Recommender", metric_name(first), "95% interval", *names, "Tokens", "Effective n"]
    return tabular(header, rows, "ll" + "r" * (len(header) - 2))


def _ends(low: float | None, high: float | None, text: Any) -> str:
    return "–" if low is None or high is None else f"[{text(low)}, {text(high)}]"


def _comparison(shown: Any) -> Mapping[str, Any]:
    c = shown.comparison
    return {
        "label": shown.label,
        "a": "/".join(c.a),
        "b": "/".join(c.b),
        "metric": c.metric,
        "relative": c.relative,
        "value": c.value,
        "low": c.low,
        "high": c.high,
        "p": c.p,
        "p_holm": shown.p_holm,
        "survives": shown.survives,
        "value_a": c.value_a,
        "value_b": c.value_b,
        "chance_corrected_a": c.chance_corrected_a,
        "chance_corrected_b": c.chance_corrected_b,
        "n": c.n,
        "users": c.users,
        "n_effective": c.n_effective,
        "detectable": shown.mde,
        "primary": shown.primary,
        "reading": shown.verdict,
    }


def _claim(claim: Any) -> Mapping[str, Any]:
    names = ("id", "statement", "unit", "value", "low", "high", "target", "p_holm", "survives", "n", "n_effective")
    return {name: getattr(claim, name) for name in (*names, "status", "note")}


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Without nested columns, which CSV cannot hold."""
    return frame.select(name for name, kind in frame.schema.items() if not kind.is_nested())
