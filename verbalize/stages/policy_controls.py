"""What a learned policy did, as controls: whether it acts differently on different histories, and how often it writes
what the best constant policy writes. Texts alone cannot tell: histories differ, so a constant policy's texts do too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.controls import share_of_distinct, share_of_distinct_patterns, symbol_shares
from recsys.storage import read_json
from verbalize.verbalizers.actions import (
    DROP,
    DROP_METADATA,
    KEEP,
    KEEP_METADATA,
)
from verbalize.verbalizers.base import Verbalizer
from verbalize.verbalizers.slots import SlotConfig, carry_out

WORDS = {
    DROP: "drop",
    DROP_METADATA: "drop (metadata on)",
    KEEP: "keep",
    KEEP_METADATA: "keep with metadata",
}
Actions = list[list[int]]
ACTIONS = "actions.parquet"
_ACTED: dict[str, Any] = {"example_id": pl.String, "actions": pl.List(pl.Int8)}


def written(verbalizer: Verbalizer, inputs: pl.DataFrame, slots: SlotConfig | None) -> tuple[list[str], Actions]:
    """B inputs -> B texts, as `verbalize` writes them, and the B action lists they were executed from; the policy runs
    once. `slots` None: a policy without actions, and no lists.
    """
    if slots is None:
        return verbalizer.verbalize(inputs), []
    policy: Any = verbalizer
    fitted, _ = policy.fit(inputs)
    actions = policy.actions(fitted)
    return carry_out(fitted, actions, slots), actions


def actions_path(folder: Path, seed: int) -> Path:
    """Where an evaluate stage in `folder` keeps the actions of a seed's policy on the evaluated examples."""
    return folder / "parts" / f"actions-{seed}.json"


def kept_actions(folder: Path, seeds: Sequence[int], example_ids: Sequence[str]) -> pl.DataFrame:
    """example_id, seed, actions: what every seed's policy of an evaluate stage in `folder` chose for the evaluated
    examples, an action for each event that its prompt had room for. A seed of which none were kept has no rows."""
    kept = {seed: actions_path(folder, seed) for seed in seeds}
    parts = [
        pl.DataFrame({"example_id": example_ids, "actions": read_json(path)}, schema=_ACTED).with_columns(seed=seed)
        for seed, path in kept.items()
        if path.exists()
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=_ACTED | {"seed": pl.Int32})


def controls(
    folder: Path, kind: str, learned: Mapping[int, Sequence[str]], constant: tuple[str, Sequence[str]]
) -> dict[str, Any]:
    """Facts of an evaluate stage, by seed: of a policy of actions what `act` finds, of a rewriter the share of distinct
    texts; and the share of texts that are the best constant policy's (`constant`: its name, its texts).

    A seed whose texts were kept by a version that did not keep actions has none.
    """
    name, same = constant
    shares = {
        str(seed): sum(a == b for a, b in zip(texts, same, strict=True)) / len(texts) for seed, texts in learned.items()
    }
    found: dict[str, Any] = {"equal_to_constant": {"constant": name, "share": shares}}
    if kind == "rewrite":
        return found | {"distinct_texts": {str(seed): share_of_distinct(texts) for seed, texts in learned.items()}}
    kept = {seed: actions_path(folder, seed) for seed in learned}
    return found | {"actions": {str(seed): act(read_json(path)) for seed, path in kept.items() if path.exists()}}


def act(actions: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`distinct`: share of distinct patterns among histories of one length, both kinds of dropping being one act;
    `symbols`: share of slots by symbol.
    """
    effective = [[DROP if symbol == DROP_METADATA else symbol for symbol in row] for row in actions]
    symbols = {WORDS[symbol]: share for symbol, share in symbol_shares(actions).items()}
    return {"distinct": share_of_distinct_patterns(effective), "symbols": symbols}


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """The facts in words; [] for those of a stage that finished before they were gathered."""
    found = []
    for seed, acted in facts.get("actions", {}).items():
        distinct = "not measurable" if acted["distinct"] is None else f"{acted['distinct']:.0%}"
        slots = ", ".join(f"{name} {share:.0%}" for name, share in acted["symbols"].items())
        found.append(
            f"Actions of seed {seed}: distinct patterns among histories of one length {distinct} (a constant policy: "
            f"0%); slots: {slots or 'none'}."
        )
    if "equal_to_constant" in facts:
        same = facts["equal_to_constant"]
        listed = ", ".join(f"seed {seed} {share:.0%}" for seed, share in same["share"].items())
        if "distinct_texts" in facts:
            distinct = ", ".join(f"seed {seed} {share:.0%}" for seed, share in facts["distinct_texts"].items())
            found.append(f"Distinct texts among the learned arm's: {distinct}.")
        found.append(f"Learned texts that are {same['constant']}'s to the letter: {listed}.")
    return found
