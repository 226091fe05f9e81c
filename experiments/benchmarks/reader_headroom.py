"""What could choosing events win, were the recommender a better one? Readers that know more than a small language model
does, on the training users of `experiments/movielens.yaml`.

    python experiments/benchmarks/reader_headroom.py          a minute on 2 cores
    ... --out DIR                                             a trial of it

A learned verbalizer that chooses events can beat a constant only as far as its reader ranks better from a part of the
history than from all of it. So the candidates of the action pool are carried out on histories of item ids and read by
genre overlap, the conditional logit, item-kNN and EASE^R. Metadata is no choice for such readers: candidates that keep
the same events count once. Two questions, at two lengths of history: does choosing per user gain over the best
candidate for all (cross-fitted), and does showing only what the user liked gain over showing everything?

Readers learn from events before the first fifth of the log; targets are those of the recipe's *training* users up to
its `train_until`. Its validation and test users' targets stay closed. EASE^R has its default ridge: choosing one would
take examples that are evaluated here.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from recording import ROOT, enter, parser_of, record, say

from recsys.evaluation import decide, summarise
from recsys.headroom import pool_headroom
from recsys.significance import RESAMPLES
from verbalize.pipeline import run_stages
from verbalize.recipe import Recipe, load_recipe
from verbalize.report.artefacts import outcomes_table
from verbalize.report.claims import Estimator
from verbalize.stages import baselines, samples, stages_of
from verbalize.verbalizers.action_pool import candidate_actions
from verbalize.verbalizers.actions import KEEP
from verbalize.verbalizers.base import verbalizer_inputs

RECIPE = ROOT / "experiments" / "movielens.yaml"
# Hashes below 0.4 are the recipe's training users, and 35% is its `train_until`.
SPLIT = [
    "examples.split={train: 0.1, validation: 0.3, test: 0.0, train_until: '20%', validate_until: '35%'}",
    "evaluation.split=validation",
    "evaluation.baselines=[genre_overlap, logit, item_knn, ease]",
    "baselines.ease={}",
    "examples.targets_per_user=30",
]
HISTORIES = (8, 30)
CLAIMED = ("logit", "ease")
CHOICE: dict[str, Any] = {"choose_by": "mrr", "shrinkage": 5.0}
"""How a user's candidate is chosen, as for the recipe's own pool."""


def decisions(recipe: Recipe, inputs: dict[str, Path]) -> pl.DataFrame:
    """Decisions of every reader on every distinct choice of events of the pool; verbalizer = the candidate."""
    examples = samples.load_examples(inputs["examples"], "validation")
    pool = candidate_actions(verbalizer_inputs(examples), recipe.policy.actions, recipe.examples.seed)
    choices: dict[str, list[list[bool]]] = {}
    for name, actions in pool.items():
        kept = [[symbol >= KEEP for symbol in row] for row in actions]
        if kept not in choices.values():
            choices[name] = kept
    return pl.concat(
        decide(reader, shown, [""] * len(shown), verbalizer=name)
        for reader in baselines.fitted(recipe, inputs, "validation")
        for name, kept in choices.items()
        for shown in [examples.with_columns(history=of_kept(examples["history"], kept))]
    )


def of_kept(histories: pl.Series, kept: list[list[bool]]) -> pl.Series:
    """The kept events of each history, in order: B histories, B lists of H_b -> B histories."""
    chosen = [
        [event for event, one in zip(row, mask, strict=True) if one] for row, mask in zip(histories, kept, strict=True)
    ]
    return pl.Series("history", chosen, dtype=histories.dtype)


def summary(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Per reader: Recall@1 of every choice of events, and the cross-fitted headroom of choosing per user."""
    for reader in table["recommender"].unique(maintain_order=True):
        mine = table.filter(pl.col("recommender") == reader)
        found = pool_headroom(mine, reader, **CHOICE)
        recall = summarise(mine, ["recall@1"], resamples=200).select("verbalizer", "value").iter_rows()
        yield {
            "reader": reader,
            "recall@1": {name: round(value, 4) for name, value in recall},
            "headroom": {"value": found.value, "low": found.low, "high": found.high, "n": found.n},
            "best_for_all": round(found.constant, 4),
        }


def main() -> None:
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="whose store of stages is used")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for events in HISTORIES:
        recipe = load_recipe(RECIPE, [*SPLIT, f"examples.history_max={events}"])
        inputs = run_stages(stages_of(recipe, ""), arguments.runs / "artefacts", until="examples")
        table = decisions(recipe, inputs)
        for row in summary(table):
            found.append({"history": events, **row})
            say(f"{events:>2} events, {row['reader']:<14} headroom {row['headroom']['value']:+.3f}  {row['recall@1']}")
    # Evidence of what is claimed alone: the longer histories, two readers.
    claimed = table.filter(pl.col("recommender").is_in(CLAIMED))
    artefact = record(
        "reader_headroom",
        arguments.out,
        outcomes_table(claimed, secrets.token_hex(16)),
        settings={"recipe": RECIPE.name, "overrides": SPLIT, "histories": HISTORIES, "resamples": RESAMPLES},
        packages=("numpy", "polars", "scipy"),
        figures={"readers": found},
        suffix=".csv.gz",
    )
    command = "python experiments/benchmarks/reader_headroom.py"
    pool = [f"{name}/{{}}" for name in found[-1]["recall@1"]]
    for reader in CLAIMED:
        where = f"MovieLens training users, {reader} reads up to {HISTORIES[-1]} events: Recall@1"
        enter(
            arguments.out,
            f"movielens.reader_headroom_{reader}",
            f"{where} that choosing among the pool's candidates per user gains over the best one for all, cross-fitted",
            unit="recall@1 difference",
            estimator=Estimator("headroom", {"pool": [name.format(reader) for name in pool], **CHOICE}),
            artefact=artefact,
            command=command,
        )
        enter(
            arguments.out,
            f"movielens.reader_liked_{reader}",
            f"{where} of showing what the user liked minus showing everything",
            unit="recall@1 difference",
            estimator=Estimator("paired_difference", {"a": f"liked_only/{reader}", "b": f"keep_all/{reader}"}),
            artefact=artefact,
            command=command,
        )


if __name__ == "__main__":
    main()
