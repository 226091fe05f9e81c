"""From `ReportData` to rows ready for a template: numbers formatted, marks drawn, failures marked. No HTML here but
`figures`' own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from verbalize.report.claims import Claim, format_claim, format_number, format_target
from verbalize.report.data import CURVE_KEY, ReportData, Shown, verdict
from verbalize.report.figures import Mark, axis, bar, curves, interval_marks, scale_for
from verbalize.report.pareto import front
from verbalize.report.plots import Point, scatter

TONES = {"better": "good", "met": "good", "worse": "bad", "missed": "bad"}
FIRST_CURVES = ("total", "reward", "margin", "recall", "dead", "entropy", "kl")


def claim_views(data: ReportData) -> list[dict[str, Any]]:
    """Cards of the headline, in the given order."""
    return [_claim_view(claim) for claim in data.claims]


def arm_rows(data: ReportData) -> dict[str, Any]:
    """`arms` (best Recall@1 first), `arm_axis`, `other_metrics`, `chance`."""
    main = (
        data.arms.filter(pl.col("metric") == "recall@1").sort("value", descending=True) if len(data.arms) else data.arms
    )
    others = [m for m in data.arms["metric"].unique(maintain_order=True).to_list() if m != "recall@1"]
    values = {(r["verbalizer"], r["recommender"], r["metric"]): r["value"] for r in data.arms.iter_rows(named=True)}
    chances = {round(c, 6) for c in main["chance"].to_list()}
    chance = chances.pop() if len(chances) == 1 else None
    scale = scale_for([x for c in ("value", "low", "high") for x in main[c].drop_nulls().to_list()])
    most = max(data.tokens.values(), default=0.0)
    rows = []
    for row in main.iter_rows(named=True):
        learned, tokens = row["verbalizer"] in data.learned, data.tokens.get(row["verbalizer"], math.nan)
        mark = Mark(
            row["value"],
            _ends(row["low"]),
            _ends(row["high"]),
            0 if learned else 7,
            f"{row['verbalizer']}: {three(row['value'])}",
        )
        rows.append(
            {
                "verbalizer": row["verbalizer"],
                "recommender": row["recommender"],
                "learned": learned,
                "mark": interval_marks([mark], scale, chance),
                "recall": three(row["value"]),
                "range": bracket(row["low"], row["high"]),
                "others": [three(values.get((row["verbalizer"], row["recommender"], m))) for m in others],
                "tokens": "–" if math.isnan(tokens) else f"{tokens:,.0f}",
                "bar": bar(tokens, most, f"{tokens:.0f} tokens"),
                "n": f"{row['n']:,}",
                "n_effective": f"({row['n_effective']:,.0f})",
            }
        )
    return {
        "arms": rows,
        "arm_axis": axis(scale, chance, "chance"),
        "other_metrics": [metric_name(m) for m in others],
        "chance": None if chance is None else three(chance),
    }


def tradeoff_view(data: ReportData) -> dict[str, Any] | None:
    """`figure` (Recall@1 against tokens) and `front`: the texts that no other beats on both; None for fewer than two.

    Recommenders that read no text have no tokens and are left out.
    """
    rows = tradeoff_rows(data)
    if len(rows) < 2:
        return None
    one_reader = len({row["recommender"] for row in rows}) == 1
    points = []
    for row in rows:
        name = row["verbalizer"] if one_reader else f"{row['verbalizer']} · {row['recommender']}"
        said = f"{name}: Recall@1 {three(row['value'])} {bracket(row['low'], row['high'])}, {row['tokens']:,.0f} tokens"
        series = 0 if row["verbalizer"] in data.learned else 7
        ends = _ends(row["low"]), _ends(row["high"])
        points.append(Point(row["tokens"], row["value"], said, *ends, series, name, row["front"]))
    names = [
        f"{row['verbalizer']} ({row['tokens']:,.0f} tokens, {three(row['value'])})" for row in rows if row["front"]
    ]
    return {"figure": scatter(points, "tokens a text", "Recall@1", "Recall@1 against tokens a text"), "front": names}


def tradeoff_rows(data: ReportData) -> list[dict[str, Any]]:
    """Arms with a text: verbalizer, recommender, value, low, high, tokens and whether it is on the Pareto front (more
    Recall@1, fewer tokens); shortest texts first.
    """
    if data.arms.is_empty():
        return []
    rows = [
        {key: row[key] for key in ("verbalizer", "recommender", "value", "low", "high")}
        | {"tokens": data.tokens[row["verbalizer"]]}
        for row in data.arms.filter(pl.col("metric") == "recall@1").iter_rows(named=True)
        if row["verbalizer"] in data.tokens
    ]
    rows.sort(key=lambda row: (row["tokens"], -row["value"]))
    best = set(front([[row["value"], row["tokens"]] for row in rows], [True, False]))
    return [row | {"front": place in best} for place, row in enumerate(rows)]


def comparison_rows(data: ReportData) -> dict[str, Any]:
    """`comparisons` and `comparison_axis`; a relative comparison has no mark: the scale is that of differences."""
    absolute = [s.comparison for s in data.comparisons if not s.comparison.relative]
    scale = scale_for([x for c in absolute for x in (c.value, c.low, c.high)])
    return {
        "comparisons": [_comparison_row(shown, scale) for shown in data.comparisons],
        "comparison_axis": axis(scale, 0.0, "no difference"),
    }


def chart_views(data: ReportData) -> dict[str, Any]:
    """`charts`: (name, figure) for every logged quantity, the telling ones first; `series`: the names of the lines."""
    names = {column for frame in data.curves.values() for column in frame.columns if column != CURVE_KEY}
    ordered = sorted(
        names,
        key=lambda n: (next((i for i, word in enumerate(FIRST_CURVES) if word in n.lower()), len(FIRST_CURVES)), n),
    )
    charts = []
    for name in ordered:
        lines = {}
        for series, frame in data.curves.items():
            present = frame.filter(pl.col(name).is_not_null()) if name in frame.columns else frame.clear()
            lines[series] = (present[CURVE_KEY].to_list(), present[name].to_list() if name in present.columns else [])
        charts.append((name, curves(lines, name)))
    return {"charts": charts, "series": list(data.curves)}


def slice_views(data: ReportData) -> dict[str, Any]:
    """`slices`: one per slice with its levels and marks, a colour per arm; `slice_series`: the arms."""
    frame = data.slices
    arms = frame.select("verbalizer", "recommender").unique(maintain_order=True).rows() if len(frame) else []
    scale = scale_for([x for c in ("value", "low", "high") for x in frame[c].drop_nulls().to_list()])
    views = []
    for name in frame["slice"].unique(maintain_order=True).to_list():
        part = frame.filter(pl.col("slice") == name)
        levels = []
        for level in map(str, part["level"].unique(maintain_order=True).to_list()):
            rows = part.filter(pl.col("level") == level)
            marks = [
                Mark(
                    r["value"],
                    _ends(r["low"]),
                    _ends(r["high"]),
                    arms.index((r["verbalizer"], r["recommender"])),
                    f"{r['verbalizer']} {three(r['value'])} {bracket(r['low'], r['high'])}",
                )
                for r in rows.iter_rows(named=True)
            ]
            n = max(rows["n"].to_list())
            levels.append({"name": level, "mark": interval_marks(marks, scale, rows["chance"][0]), "n": f"{n:,}"})
        views.append({"name": name.capitalize(), "levels": levels, "axis": axis(scale, part["chance"][0], "chance")})
    return {"slices": views, "slice_series": [f"{v} × {r}" if r else v for v, r in arms]}


def look_rows(data: ReportData) -> list[dict[str, Any]]:
    """The register of test looks, as registered."""
    return [
        {
            "claim": look["claim_id"],
            "when": str(look.get("when", "")).replace("T", " ").removesuffix("+00:00"),
            "number": look.get("look", 1),
            "arms": ", ".join(look.get("arms", [])),
            "n": f"{look.get('n', 0):,} ({look.get('n_effective', 0):,.0f})",
            "mde": three(look.get("mde")),
        }
        for look in data.looks
    ]


def three(value: float | None) -> str:
    """Three decimals; an en dash for what is not known."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """Signed, typographic minus.

    >>> signed(-0.5), signed(0.25, 1), signed(None)
    ('−0.500', '+0.2', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def percent(fraction: float) -> str:
    """A signed percentage; an en dash for what is undefined.

    >>> percent(-0.047), percent(math.nan)
    ('−4.7%', '–')
    """
    return "–" if math.isnan(fraction) else f"{100 * fraction:+.1f}%".replace("-", "−")


def bracket(low: float | None, high: float | None) -> str:
    """An interval."""
    return "no interval" if low is None or high is None or math.isnan(low) else f"[{three(low)}, {three(high)}]"


def metric_name(metric: str) -> str:
    """ "mrr" -> "MRR", "recall@3" -> "Recall@3"."""
    return metric.upper() if not metric.startswith("recall") else metric.capitalize()


def claim_verdict(claim: Claim) -> str:
    """The claim's status and what stands against a number that reaches its target; for differences on too few rankings
    that may be 0, that too.

    A met or missed target says how the number stands to what was asked; "too small to conclude" says that it could not
    have told.
    """
    difference = claim.unit in ("recall@1 difference", "fraction", "score difference")
    if (
        difference
        and claim.low is not None
        and claim.high is not None
        and verdict(claim.low, claim.high, claim.n_effective) == "too small to conclude"
    ):
        return f"{claim.status} · too small to conclude"
    return " · ".join([claim.status, *claim.objections])


def _claim_view(claim: Claim) -> dict[str, Any]:
    known = claim.value is not None
    text = format_claim(claim).partition(" (target")[0]
    return {
        "statement": claim.statement,
        "number": format_number(claim.value, claim.unit) if claim.value is not None else "not measured",
        "range": text[text.index("[") :] if known else "",
        "target": format_target(claim),
        "verdict": claim_verdict(claim),
        "tone": TONES.get(claim.status, "open"),
        "n": f"{claim.n:,}" if known else "",
        "n_effective": f"{claim.n_effective:,.0f}",
        "note": claim.note,
    }


def _comparison_row(shown: Shown, scale: Any) -> dict[str, Any]:
    c = shown.comparison
    series = {"good": 0, "bad": 1}.get(TONES.get(shown.verdict, ""), 7)
    mark = Mark(c.value, c.low, c.high, series, f"{shown.label}: {signed(c.value)}")
    number = percent if c.relative else signed
    return {
        "label": shown.label,
        "metric": metric_name(c.metric) + (" (relative)" if c.relative else ""),
        "primary": shown.primary,
        "mark": "" if c.relative else interval_marks([mark], scale, 0.0),
        "value": number(c.value),
        "range": f"[{number(c.low)}, {number(c.high)}]",
        "both": f"{three(c.value_a)} / {three(c.value_b)}",
        "corrected": f"{three(c.chance_corrected_a)} / {three(c.chance_corrected_b)}",
        "relative": percent(c.value_a / c.value_b - 1) if c.value_b else "–",
        "mde": three(shown.mde),
        "p": three(shown.p_holm),
        "n": f"{c.n:,}",
        "n_effective": f"({c.n_effective:,.0f})",
        "verdict": shown.verdict,
        "tone": TONES.get(shown.verdict, "open"),
        "seeds": _by_seed(c.per_seed_a, c.per_seed_b),
    }


def _by_seed(a: Mapping[int, float], b: Mapping[int, float]) -> str:
    """Each seed's difference; an arm without training stands with its one value against every seed."""
    seeds: Sequence[int] = sorted(set(a) | set(b))
    if len(seeds) < 2:
        return ""
    only_a, only_b = next(iter(a.values())), next(iter(b.values()))
    return ", ".join(
        signed((a[s] if len(a) > 1 else only_a) - (b[s] if len(b) > 1 else only_b))
        for s in seeds
        if (len(a) < 2 or s in a) and (len(b) < 2 or s in b)
    )


def _ends(value: float | None) -> float:
    return math.nan if value is None else value
