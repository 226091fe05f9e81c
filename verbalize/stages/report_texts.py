"""What the texts of an evaluation do, from artefacts of finished stages: nothing is trained, written or ranked."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recsys.storage import read_parquet
from verbalize.recipe_sections import LEARNED
from verbalize.report.text_traits import PARTS, summarise_traits, traits_of_texts
from verbalize.stages import oracle


def text_traits(inputs: Mapping[str, Path]) -> pl.DataFrame:
    """Stage name -> finished folder (logs, examples, evaluate, where there is one oracle), to `summarise_traits`' rows.

    Cost: seconds for thousands of texts; every text is held against the whole catalogue.
    """
    texts = read_parquet(inputs["evaluate"] / "verbalizations.parquet")
    examples = read_parquet(inputs["examples"] / "examples.parquet")
    titles = read_parquet(inputs["logs"] / "items.parquet")["title"].drop_nulls().to_list()
    parts = [traits_of_texts(texts, examples, titles)]
    if "oracle" in inputs and (inputs["oracle"] / oracle.NOISE).exists():
        parts.append(noise_parts(read_parquet(inputs["oracle"] / oracle.NOISE)))
    return summarise_traits(pl.concat(parts))


def noise_parts(noise: pl.DataFrame) -> pl.DataFrame:
    """The oracle's counts of events (its noise.parquet) as parts and wholes: noise that was kept, and other events."""
    wide = noise.pivot("arm", index=["example_id", "user_id", "seed"], values="value")
    column = {name: pl.col(name) for name in oracle.COUNTS}
    kept_noise = column["noise"] - column["noise_dropped"]
    kept = column["shown"] - column["dropped"]
    shares = {
        "noise_kept": (kept_noise, column["noise"]),
        "signal_kept": (kept - kept_noise, column["shown"] - column["noise"]),
    }
    return pl.concat(
        wide.with_columns(arm=pl.lit(LEARNED), measure=pl.lit(name), part=part, whole=whole).select(*PARTS)
        for name, (part, whole) in shares.items()
    )
