"""The Bayes-optimal Recall@1 of slates: what the best possible ranking reaches when it knows everything but the target.

The oracle knows the state of the account at the cutoff: who is watching, her taste at that moment, all that the account
ever touched, whether she goes on with a series, comes back to something or begins something new; and how slates are
drawn, with every popularity count they depend on. Given this,

    P(c is the target | slate) ∝ p(c | state) · P(the slate's other names | c is the target)

and the optimum ranks by it: its expected Recall@1 on a slate is the largest posterior. Whoever knows less (everyone
reads the log only) can on average not exceed it, so the mean over examples is an upper bound.

- Something new (kind `new`): p is `households.log_preference` over items of works the account never touched.
- The next episode of a series in progress is determined by the state: the optimum is 1.
- Something seen before (`rewatch`): negatives exclude what was touched, so the only touched item on the slate is the
  target: the optimum is 1, for anybody who remembers the whole log.

Assumptions, which the simulator meets: whether a play is finished, when it happens, and which examples a recipe keeps
depend on the state and on hashes, not on what is chosen; targets are finished deliberate plays; nothing of the future
enters a slate (`recsys.logs.slates`). Repeated draws of the same user are no problem: an expectation needs no
independence.
"""

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.logs.slates import SlateConfig
from recsys.logs.tables import Log
from recsys.simulator.catalogue import Catalogue, make_catalogue
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.generate import KINDS, NEW
from recsys.simulator.households import log_preference, make_households, user_numbers
from recsys.simulator.slate_draws import DAY_US, POLICIES, Past, SlateDraws
from recsys.simulator.slate_probability import posterior

_TARGET_KINDS = KINDS[:3]


def bayes_optimum(
    config: SimulatorConfig,
    examples: pl.DataFrame,
    slates: pl.DataFrame,
    truth: pl.DataFrame,
    log: Log,
    drawn: SlateConfig,
) -> pl.DataFrame:
    """One row per slate, in the order of `slates`: example_id, slate_index, kind, posterior (List[Float64], in slate
    order), bound: its largest entry, the Bayes-optimal Recall@1.

    `examples` has example_id, user_id, cutoff_time, target_item_id; `slates` example_id, slate_index, slate,
    target_index, drawn from `log` under `drawn`; `truth` is the simulation's. Raises InputError for a policy whose
    probabilities are not known, and for targets that are noise or not of this simulation.
    """
    if drawn.policy not in POLICIES:
        raise InputError(
            f"slate.policy {drawn.policy!r}", "has no known Bayes optimum", f"use one of {', '.join(POLICIES)}"
        )
    catalogue = make_catalogue(config)
    log = Log(log.events, log.items.sort("item_id"))
    if log.items["item_id"].to_list() != catalogue.items["item_id"].to_list():
        raise InputError("the log's catalogue", "is not the simulation's", "name the simulation the log came from")
    targets = _with_state(examples, truth)
    state = {row["example_id"]: row for row in targets.iter_rows(named=True)}
    affinities = _affinities(config, targets)
    codes = {item: code for code, item in enumerate(log.items["item_id"])}
    past = Past(log.events, codes)
    ids, indices, names, places = (
        slates[name].to_list() for name in ("example_id", "slate_index", "slate", "target_index")
    )
    shares: list[np.ndarray] = [np.empty(0)] * len(ids)
    day, draw = -1, None
    for row in sorted(range(len(ids)), key=lambda row: state[ids[row]]["cutoff"]):
        one = state[ids[row]]
        slate = np.array([codes[item] for item in names[row]])
        if one["kind"] != KINDS[NEW]:
            shares[row] = (np.arange(len(slate)) == places[row]).astype(float)
            continue
        if draw is None or one["cutoff"] // DAY_US != day:
            day = one["cutoff"] // DAY_US
            draw = SlateDraws(log.items, past.counts_before(day * DAY_US), drawn)
        seen = past.of(one["user_id"], one["cutoff"])
        preference = log_preference(config, catalogue, affinities[ids[row]], slate)[0]
        shares[row] = _posterior(catalogue, draw, preference, seen, slate)
    return pl.DataFrame(
        {
            "example_id": ids,
            "slate_index": pl.Series(indices, dtype=pl.Int32),
            "kind": [state[example]["kind"] for example in ids],
            "posterior": pl.Series([row.tolist() for row in shares], dtype=pl.List(pl.Float64)),
            "bound": [float(row.max()) for row in shares],
        }
    )


def _posterior(
    catalogue: Catalogue, draw: SlateDraws, preference: np.ndarray, seen: np.ndarray, slate: np.ndarray
) -> np.ndarray:
    """Of a slate for a new choice. `preference` (S,) in logs, `seen` (N,) touched before, `slate` (S,) item codes."""
    touched_works = np.zeros(len(catalogue.lane), bool)
    touched_works[catalogue.work[seen]] = True
    wanted = np.where(touched_works[catalogue.work[slate]], -np.inf, preference)
    return posterior(wanted, draw.log_probability(slate, ~seen))


def _with_state(examples: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Examples with kind, member and phase of their target, and the cutoff in microseconds."""
    known = truth.filter(pl.col("event_type") == "play").select(
        "user_id", "kind", "member", "phase", target_item_id="item_id", cutoff_time="event_time"
    )
    found = examples.select("example_id", "user_id", "cutoff_time", "target_item_id").join(
        known, on=["user_id", "target_item_id", "cutoff_time"], how="left", maintain_order="left"
    )
    odd = found.filter(~pl.col("kind").is_in(_TARGET_KINDS).fill_null(False))
    if len(odd):
        raise InputError(
            f"target {odd['target_item_id'][0]!r} of example {odd['example_id'][0]} and {len(odd) - 1} more",
            f"is {odd['kind'][0] or 'no play of this simulation'}, not a deliberate play",
            "keep the source's own rule for engaged targets, and name the simulation the log came from",
        )
    return found.with_columns(cutoff=pl.col("cutoff_time").dt.epoch("us"))


def _affinities(config: SimulatorConfig, targets: pl.DataFrame) -> dict[str, np.ndarray]:
    """Example id -> affinities (1, G) of the member who chooses, in her phase at that moment; new choices only."""
    new = targets.filter(pl.col("kind") == KINDS[NEW])
    numbers, row = np.unique(user_numbers(new["user_id"]), return_inverse=True)
    affinity = make_households(config, numbers).affinity[row, new["member"].to_numpy(), new["phase"].to_numpy()]
    return dict(zip(new["example_id"], affinity[:, None], strict=True))
