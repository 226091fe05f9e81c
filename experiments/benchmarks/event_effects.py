"""How much of a reward is luck: what dropping a single event does to it, by kind of event.

    python experiments/benchmarks/event_effects.py               two encoders' training, half an hour, then minutes
    python experiments/benchmarks/event_effects.py simulator     simulated plays alone, whose noise is known
    ... --out DIR                                                a trial of it

A policy of actions learns from rewards which events to drop. Here nothing is learned: every event of training examples
of a recipe with a trained sentence encoder is dropped once, all others kept with metadata, and the reward compared with
that of keeping all. The mean by kind of event is what there is to learn, its spread over events the luck in which it
hides; their ratio says how many events a learner has to see, however it learns. Rewards are those of one target, and of
four of the same user's (`reward.targets`). Validation and test users stay closed.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from recording import RESULTS, ROOT, enter, parser_of, record, say

from verbalize.pipeline import Context, run_stages
from verbalize.recipe import Recipe, load_recipe
from verbalize.report.artefacts import values_table
from verbalize.report.claims import Estimator
from verbalize.stages import samples, stages_of
from verbalize.stages.pool import reward_scorer
from verbalize.stages.recommender import open_recommender
from verbalize.verbalizers.actions import DROP, KEEP_METADATA, execute
from verbalize.verbalizers.base import verbalizer_inputs

EXPERIMENTS = ROOT / "experiments"
TARGETS = (1, 4)
EXAMPLES = 400
PLAYED = pl.col("event_type") == "play"


@dataclass(frozen=True)
class Log:
    """A recipe, what is changed in it, and the kinds of events that are told apart."""

    recipe: Path
    overrides: tuple[str, ...]
    kinds: Mapping[str, pl.Expr]
    where: str


LOGS = {
    "simulator": Log(
        EXPERIMENTS / "encoder_simulator.yaml",
        ("source.inline.seed=4",),
        {
            "preview": pl.col("event_type") == "preview",
            "short_play": PLAYED & (pl.col("completion") <= 0.1),
            "watched_play": PLAYED & (pl.col("completion") > 0.8),
        },
        "Simulated plays",
    ),
    "movielens": Log(
        EXPERIMENTS / "encoder.yaml",
        (),
        {
            "disliked": pl.col("rating") <= 2,
            "middling": pl.col("rating") == 3,
            "liked": pl.col("rating") >= 4,
        },
        "MovieLens",
    ),
}
NOTHING = "nothing"
Z = 3.0
"""The effect over its standard error at which a learner could be said to have seen it."""


def effects(recipe: Recipe, inputs: dict[str, Path], count: int) -> pl.DataFrame:
    """example_id, user_id, event_type, rating, completion, effect: the reward with the event dropped less that with all
    kept, for every shown event of `count` training examples."""
    context = Context(inputs["examples"], inputs)
    examples = samples.training_sample(recipe, inputs["examples"]).head(count)
    score = reward_scorer(recipe, context, open_recommender(recipe, inputs), examples)
    shown = verbalizer_inputs(examples)
    lengths = examples["history"].list.len().to_list()

    def rewards(dropped: int | None) -> np.ndarray:
        actions = [[DROP if place == dropped else KEEP_METADATA for place in range(events)] for events in lengths]
        texts = execute(shown, actions, recipe.policy.actions)
        return np.array([scored.reward for scored in score(examples["example_id"].to_list(), texts)])

    kept, tables = rewards(None), []
    for place in range(max(lengths)):
        event = examples.select(
            "example_id",
            "user_id",
            pl.col("history").list.get(place, null_on_oob=True).struct.field("event_type", "rating", "completion"),
            effect=pl.Series(rewards(place) - kept),
        )
        tables.append(event.filter(pl.Series([place < events for events in lengths])))
        say(f"event {place + 1} of {max(lengths)} dropped, {recipe.reward.targets} targets")
    return pl.concat(tables)


def summary(table: pl.DataFrame, chosen: pl.Expr) -> dict[str, Any]:
    """Of the chosen events: how many, the effect of dropping one, its spread, and the events it takes to see it."""
    found = table.filter(chosen)["effect"]
    mean, spread = float(found.mean()), float(found.std())  # type: ignore[arg-type]
    needed = int(np.ceil((Z * spread / mean) ** 2)) if mean else None  # no number of them shows an effect of exactly 0
    return {"events": len(found), "mean": round(mean, 5), "spread": round(spread, 5), "events_needed": needed}


def measured(name: str, log: Log, count: int, store: Path) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """The summaries of every kind over one target and several, and the evidence: example, mean effect of its events."""
    figures: list[dict[str, Any]] = []
    evidence: list[pl.DataFrame] = []
    for targets in TARGETS:
        asked = (*log.overrides, f"sample.train={count}", "sample.train_per_user=4", f"reward.targets={targets}")
        recipe = load_recipe(log.recipe, asked)
        inputs = run_stages(stages_of(recipe, ""), store, until="recommender")
        table = effects(recipe, inputs, count)
        for kind, chosen in log.kinds.items():
            figures.append({"log": name, "targets": targets, "kind": kind, **summary(table, chosen)})
            say(f"{figures[-1]}")
            means = table.filter(chosen).group_by("example_id", "user_id", maintain_order=True)
            one = means.agg(value=pl.col("effect").mean()).with_columns(seed=0)
            arm = f"{name}.{kind}.{targets}"
            evidence += [one.with_columns(arm=pl.lit(arm)), one.with_columns(arm=pl.lit(f"{NOTHING}.{arm}"), value=0.0)]
    return figures, pl.concat(evidence)


def main() -> None:
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("logs", nargs="*", help=f"of {', '.join(LOGS)} (default: all)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="training examples; another number needs --out")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="whose store of stages is used")
    arguments = parser.parse_args()
    if arguments.examples != EXAMPLES and arguments.out.resolve() == RESULTS:
        parser.error(f"--examples {arguments.examples}: what is recorded has {EXAMPLES}; give --out DIR for a trial")
    if unknown := [name for name in arguments.logs if name not in LOGS]:
        parser.error(f"logs {unknown}: choose from {', '.join(LOGS)}")
    for name in arguments.logs or LOGS:
        log = LOGS[name]
        figures, evidence = measured(name, log, arguments.examples, arguments.runs / "artefacts")
        settings = {"recipe": log.recipe.name, "overrides": log.overrides, "examples": arguments.examples, "z": Z}
        artefact = record(
            f"event_effects_{name}",
            arguments.out,
            values_table(evidence, secrets.token_hex(16)),
            settings=settings,
            packages=("torch", "transformers", "polars"),
            figures={"effects": figures},
            suffix=".csv.gz",
        )
        for kind in log.kinds:
            arm = f"{name}.{kind}.{TARGETS[-1]}"
            enter(
                arguments.out,
                f"{name}.drop_{kind}",
                f"{log.where}, training users, a trained sentence encoder reads: reward of dropping one event, "
                f"{kind.replace('_', ' ')}, minus keeping it, others kept, {TARGETS[-1]} targets",
                unit="nats",
                estimator=Estimator("mean_difference", {"a": arm, "b": f"{NOTHING}.{arm}"}),
                artefact=artefact,
                command=f"python experiments/benchmarks/event_effects.py {name}",
            )


if __name__ == "__main__":
    main()
