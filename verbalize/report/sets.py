"""A report over several runs: their arms, trade-offs and curves side by side, and what their recipes do differently.

No number is computed here: each run's own numbers stand beside the others, named by their run. Whether two runs ranked
the same slates is checked and said first, because otherwise their values must not be compared.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys.errors import InputError
from verbalize.report.data import ReportData
from verbalize.report.html import render_page

SLATES = "slates (sha256)"  # the key of a report's provenance that identifies what was ranked
_SILENT = ("name", "title")  # keys of a recipe that always differ and change nothing


def runs_report(runs: Mapping[str, ReportData], recipes: Mapping[str, Any] | None = None) -> str:
    """One self-contained HTML document for `runs`: name -> report.

    `recipes`: name -> plain values of its recipe, for the table of differences. Raises InputError for fewer than two.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run(s)", "a report over runs compares at least two", "name more runs")
    parts = {
        "rows": [
            {"name": name, "subtitle": data.subtitle, "slates": data.provenance.get(SLATES, "not recorded")[:12]}
            for name, data in runs.items()
        ],
        "differences": differences({name: (recipes or {}).get(name, {}) for name in runs}),
    }
    return render_page(combined(runs), extra={"runs": parts}, notes=(comparable(runs),))


def combined(runs: Mapping[str, ReportData]) -> ReportData:
    """The runs' arms, claims, comparisons, ranks among the whole catalogue, traits of texts and curves in one report,
    each named "run: arm". Slices, examples and looks stay in the runs' own reports.
    """

    def named(name: str) -> pl.Expr:
        return pl.concat_str(pl.lit(f"{name}: "), pl.col("verbalizer"))

    columns = list(ReportData("").arms.columns)
    return ReportData(
        title=f"{len(runs)} runs: {', '.join(runs)}",
        claims=tuple(
            dataclasses.replace(claim, statement=f"{name}: {claim.statement}")
            for name, data in runs.items()
            for claim in data.claims
        ),
        arms=pl.concat(
            [data.arms.select(columns).with_columns(verbalizer=named(name)) for name, data in runs.items()],
            how="vertical_relaxed",
        ),
        tokens={f"{name}: {arm}": tokens for name, data in runs.items() for arm, tokens in data.tokens.items()},
        learned=frozenset(f"{name}: {arm}" for name, data in runs.items() for arm in data.learned),
        comparisons=tuple(
            dataclasses.replace(shown, label=f"{name}: {shown.label}")
            for name, data in runs.items()
            for shown in data.comparisons
        ),
        traits=pl.concat(
            [
                data.traits.with_columns(arm=pl.concat_str(pl.lit(f"{name}: "), pl.col("arm")))
                for name, data in runs.items()
            ],
            how="vertical_relaxed",
        ),
        catalogue=pl.concat(
            [data.catalogue.select(columns).with_columns(verbalizer=named(name)) for name, data in runs.items()],
            how="vertical_relaxed",
        ),
        curves={f"{name}, {series}": frame for name, data in runs.items() for series, frame in data.curves.items()},
        provenance={
            f"{name}: {key}": value
            for name, data in runs.items()
            for key, value in data.provenance.items()
            if key in ("command", "revision", "date", "hardware", "data", SLATES)
        },
    )


def comparable(runs: Mapping[str, ReportData]) -> str:
    """One sentence: whether the runs ranked the same targets in the same slates."""
    slates = {data.provenance.get(SLATES) for data in runs.values()}
    if None in slates:
        return "Not every run recorded which slates it ranked: values of different runs may not be comparable."
    if len(slates) == 1:
        return "All runs ranked the same targets in the same slates, so their values may be compared."
    return (
        "The runs ranked different targets or slates: values of different runs must not be compared with one another, "
        "only arms within a run."
    )


def differences(recipes: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Dotted keys whose values differ between recipes, in order of appearance, with one text per recipe.

    >>> differences({"a": {"train": {"steps": 10, "lr": 0.1}}, "b": {"train": {"steps": 20, "lr": 0.1}}})
    [('train.steps', ['10', '20'])]
    """
    flat = [_flat(recipe) for recipe in recipes.values()]
    keys = dict.fromkeys(key for one in flat for key in one if key not in _SILENT)
    found = [(key, [one.get(key, "–") for one in flat]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


def _flat(value: Any, where: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and (value or not where):
        pairs = [_flat(one, f"{where}.{key}" if where else str(key)) for key, one in value.items()]
        return {key: text for pair in pairs for key, text in pair.items()}
    return {where: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}
