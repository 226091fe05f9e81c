"""Every arm's texts ranked by a recommender, each text once per example; margins and text tables of the arms."""

from pathlib import Path
from typing import Any

import polars as pl

from recsys import contracts
from recsys.evaluation import decide_in_chunks
from verbalize.pipeline import Context
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.compression import log_token_counts, verbalizations_table

Texts = dict[tuple[str, int], list[str]]
"""(verbalizer, training seed) -> one text per example."""


def rank(
    context: Context,
    recommender: Any,
    examples: pl.DataFrame,
    texts: Texts,
    slates: pl.DataFrame | None,
    folder: Path,
    known: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decisions of every arm, resumable, with progress; and all decisions made so far, each with its text.

    A text that several arms wrote for an example is ranked once: ties are broken by the example and its slate, so the
    decision would be the same. `known` brings decisions of an earlier call on the same slates.
    """
    done, parts = 0, []
    total = len(texts) * len(examples)
    ids = examples["example_id"]
    for (name, seed), written in texts.items():
        wanted = pl.DataFrame({"example_id": ids, "text": pl.Series(written, dtype=pl.String)})
        new = wanted if known is None else wanted.join(known, on=["example_id", "text"], how="anti")
        fresh = ids.is_in(new["example_id"].to_list())
        before = done + len(examples) - len(new)

        def tell(count: int, _: int, name: str = name, before: int = before) -> None:
            context.progress.step("evaluate", before + count, total, f"{name} × {recommender.name}")

        if len(new):
            decided = decide_in_chunks(
                recommender,
                examples.filter(fresh),
                wanted.filter(fresh)["text"].to_list(),
                verbalizer=name,
                seed=seed,
                slates=slates,
                chunk_size=32,
                folder=folder / f"{name}-{seed}",
                progress=tell,
            )
            decided = decided.join(wanted, on="example_id", how="left", maintain_order="left")
            known = decided if known is None else pl.concat([known, decided])
        assert known is not None  # the first arm's texts are all new
        arm = wanted.join(known, on=["example_id", "text"], how="left", maintain_order="left_right")
        labels = {"verbalizer": pl.lit(name), "seed": pl.lit(seed, pl.Int64)}
        parts.append(arm.with_columns(**labels).select(contracts.schema("decisions").names()))
        done += len(examples)
    assert known is not None, "no arm to rank"
    return pl.concat(parts), known


def margins(decisions: pl.DataFrame, temperature: float) -> pl.DataFrame:
    """Per example, arm and seed: the target's margin over its negatives, mean over slates, in the score's unit."""
    from verbalize.optimize.rewards import Ranking, margin

    rows = [
        margin(Ranking(scores, target, rank), temperature)
        for scores, target, rank in decisions.select(pl.col("scores"), "target_index", "rank").iter_rows()
    ]
    keys = ["example_id", "user_id", "verbalizer", "seed"]
    table = decisions.select(keys).with_columns(value=pl.Series(rows, dtype=pl.Float64))
    return table.group_by(keys, maintain_order=True).agg(pl.col("value").mean()).rename({"verbalizer": "arm"})


def text_table(examples: pl.DataFrame, texts: Texts, tokenizer: Any) -> pl.DataFrame:
    """The verbalizations table; the first seed of an arm bears the arm's name, the others name@seed."""
    inputs = verbalizer_inputs(examples)
    log_tokens = log_token_counts(inputs, tokenizer)
    tables, named = [], set()
    for (name, seed), written in texts.items():
        tables.append(
            verbalizations_table(
                inputs, name if name not in named else f"{name}@{seed}", written, tokenizer, log_tokens
            )
        )
        named.add(name)
    return pl.concat(tables)
