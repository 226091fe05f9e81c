"""The report's table of ranks among the whole catalogue: rows for the page and for the terminal, best NDCG first."""

from typing import Any

import polars as pl

from verbalize.report.data import ReportData
from verbalize.report.views import bracket, metric_name, three

SORTED_BY = "ndcg@10"


def catalogue_view(data: ReportData) -> dict[str, Any] | None:
    """`metrics` (their names), `rows` (arm, one value with its interval per metric, n) and `chance` (of each metric, ""
    where arms met other candidates); None where the recipe did not ask.
    """
    frame = data.catalogue
    if frame.is_empty():
        return None
    metrics = frame["metric"].unique(maintain_order=True).to_list()
    values = {(row["verbalizer"], row["recommender"], row["metric"]): row for row in frame.iter_rows(named=True)}
    arms = frame.filter(pl.col("metric") == SORTED_BY).sort("value", descending=True, maintain_order=True)
    rows = []
    for verbalizer, recommender in arms.select("verbalizer", "recommender").rows():
        mine = [values[verbalizer, recommender, metric] for metric in metrics]
        rows.append(
            {
                "verbalizer": verbalizer,
                "recommender": recommender,
                "learned": verbalizer in data.learned,
                "cells": [{"value": three(one["value"]), "range": bracket(one["low"], one["high"])} for one in mine],
                "n": f"{mine[0]['n']:,}",
                "n_effective": f"({mine[0]['n_effective']:,.0f})",
            }
        )
    chances = {(row["metric"], f"{row['chance']:.4f}") for row in frame.iter_rows(named=True)}
    same = len(chances) == len(metrics)
    chance = ", ".join(f"{metric_name(name)} {dict(chances)[name]}" for name in metrics) if same else ""
    return {"metrics": [metric_name(name) for name in metrics], "rows": rows, "chance": chance}
