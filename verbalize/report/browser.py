"""The example browser's entries, from a run's tables: the log, every arm's text with its stretches, the slate."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from verbalize.report.data import ArmText, ExampleView
from verbalize.report.spans import read_text
from verbalize.verbalizers.sanitise import UNTITLED


def example_views(
    examples: pl.DataFrame,
    titles: Mapping[str, str],
    texts: pl.DataFrame,
    decisions: pl.DataFrame,
    limit: int = 12,
    arm: str = "verbalizer",
) -> tuple[ExampleView, ...]:
    """The `limit` examples with the worst ranks first, each with every arm's text, from the run's tables.

    `examples`, `texts` (verbalizations) and `decisions` follow their contracts; of several seeds or slates the first is
    shown. `arm` is the column of `decisions` that names the arm; its rows must share one recommender (filter before).
    Titles fall back to the item id. Users are numbered in the order shown: no id of the log is in a report.
    """
    first = decisions.sort("slate_index", "seed").unique(["example_id", arm], keep="first", maintain_order=True)
    chosen = (
        first.group_by("example_id")
        .agg(pl.col("rank").max(), pl.len().alias("arms"))
        .sort(["arms", "rank", "example_id"], descending=[True, True, False])
        .head(limit)["example_id"]
        .to_list()
    )
    written = {
        (r["example_id"], r["verbalizer"]): r
        for r in texts.filter(pl.col("example_id").is_in(chosen)).iter_rows(named=True)
    }
    ranked: dict[str, list[dict[str, Any]]] = {}
    for row in first.filter(pl.col("example_id").is_in(chosen)).sort(arm).iter_rows(named=True):
        ranked.setdefault(row["example_id"], []).append(row)
    rows = {r["example_id"]: r for r in examples.filter(pl.col("example_id").is_in(chosen)).iter_rows(named=True)}
    chosen.sort(key=lambda example: -max(row["rank"] for row in ranked[example]))  # stable: ties keep their order
    users = {user: i for i, user in enumerate(dict.fromkeys(ranked[e][0]["user_id"] for e in chosen), 1)}
    return tuple(
        _view(i, users[ranked[example][0]["user_id"]], rows[example], titles, ranked[example], written, arm)
        for i, example in enumerate((e for e in chosen if e in rows), 1)
    )


def _view(
    number: int,
    user: int,
    row: Mapping[str, Any],
    titles: Mapping[str, str],
    decided: Sequence[Mapping[str, Any]],
    written: Mapping[tuple[str, str], Mapping[str, Any]],
    arm: str,
) -> ExampleView:
    texts = []
    for decision in decided:
        text = written.get((decision["example_id"], decision["verbalizer"]), {})
        words = text.get("text", "")
        reading = read_text(words, row["history"])
        texts.append(
            ArmText(decision[arm], words, decision["rank"], tuple(decision["scores"]), text.get("tokens"), reading)
        )
    slate = tuple(titles.get(item, item) for item in row["slate"])
    history = tuple(_event_line(event) for event in row["history"])
    target, events = decided[0]["target_index"], tuple(event["title"] or UNTITLED for event in row["history"])
    return ExampleView(f"Example {number}", history, slate, target, tuple(texts), f"User {user}", events)


def _event_line(event: Mapping[str, Any]) -> str:
    year = f" ({event['year']})" if event.get("year") else ""
    rating = f", rated {event['rating']:g}" if event.get("rating") is not None else ""
    return f"{event['event_time']:%Y-%m-%d}  {event['title'] or UNTITLED}{year}{rating}"
