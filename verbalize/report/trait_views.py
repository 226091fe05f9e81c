"""What the texts do, as rows for a page or a terminal: one group of columns about texts, one about their metadata."""

from typing import Any

import polars as pl

from verbalize.report.data import ReportData
from verbalize.report.text_measures import METADATA, TRAITS

GROUPS = (("What the texts do", TRAITS), ("Beside a kept title", METADATA))


def trait_groups(data: ReportData) -> list[dict[str, Any]]:
    """Per group its `name`, the `measures` that any arm has, and the `arms`, best Recall@1 first, each with a pair
    (value, interval) per measure.
    """
    rows = {(row["arm"], row["measure"]): row for row in data.traits.iter_rows(named=True)}
    ranked = data.arms.filter(pl.col("metric") == "recall@1") if len(data.arms) else data.arms
    known = dict.fromkeys(ranked.sort("value", descending=True)["verbalizer"].to_list())
    place = {arm: number for number, arm in enumerate(known)}
    arms = sorted(dict.fromkeys(arm for arm, _ in rows), key=lambda arm: place.get(arm, len(place)))
    groups = []
    for name, possible in GROUPS:
        measures = [measure for measure in possible if any((arm, measure.name) in rows for arm in arms)]
        shown = [
            {
                "name": arm,
                "learned": arm in data.learned,
                "cells": [_cell(rows.get((arm, measure.name))) for measure in measures],
            }
            for arm in arms
        ]
        groups += [{"name": name, "measures": measures, "arms": shown}] if measures else []
    return groups


def share(value: float | None) -> str:
    """A percentage without sign.

    >>> share(0.9967), share(None)
    ('99.7%', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}%"


def _cell(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return share(None), ""
    return share(row["value"]), "" if row["low"] is None else f"[{share(row['low'])}, {share(row['high'])}]"
