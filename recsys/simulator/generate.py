"""Events, and apart from them their truth: all users of a chunk take one step at a time.

An account's sessions begin at hours of a daily rhythm. A session belongs to one member and continues with probability
`session_continues` after each event. What an event is, follows `SimulatorConfig`; the choice of a new work is

    p(work) ∝ exp(taste_strength · affinity) · popularity ** bias      over works the account never touched,

drawn by rejection: lane by the member's taste, work within the lane by popularity, again if it was touched. Touched
means any event, previews and accidents too, so a new choice is exactly a discovery.

**Noise** is what nobody chose: previews and accidental plays. Plays of other members are not noise (somebody liked
them), nor are deliberate plays that ended early; the truth names the member, so both can be told apart. Truth lives in
its own table, keyed like events; nothing of it is in theirs but what any log shows: short plays and event types.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys import contracts
from recsys.simulator import draws
from recsys.simulator.catalogue import Catalogue, make_catalogue
from recsys.simulator.config import SimulatorConfig
from recsys.simulator.households import Households, lane_logits, make_households, user_ids

KINDS = ("new", "next_episode", "rewatch", "accidental", "preview")
NEW, NEXT, REWATCH, ACCIDENTAL, PREVIEW = range(5)
TRUTH_SCHEMA = pl.Schema(
    [
        ("user_id", pl.String()),
        ("item_id", pl.String()),
        ("event_time", pl.Datetime("us", "UTC")),
        ("event_type", pl.String()),
        ("kind", pl.String()),
        ("is_noise", pl.Boolean()),
        ("member", pl.Int8()),
        ("phase", pl.Int8()),
    ]
)
"""`kind` is one of KINDS; `member` was watching, in `phase` 0 or 1: before or after her taste moved."""

USERS_PER_CHUNK = 2048
ENGAGED_COMPLETION = 0.5
"""Between the completions of plays that ended early and of finished ones: a target is a finished deliberate play."""
_HOURS = np.array([4, 2, 1, 1, 1, 1, 2, 4, 5, 5, 5, 5, 7, 7, 6, 6, 7, 10, 14, 18, 21, 20, 14, 8], float)
_ROUNDS = 40  # of rejection; who has touched nearly everything watches something again instead
_REMEMBERED = 100  # finished plays an account may come back to: the latest


@dataclass(frozen=True)
class Chunk:
    """Events under their contract, ordered by user and time, and the truth about each, row by row."""

    events: pl.DataFrame
    truth: pl.DataFrame


def simulate(config: SimulatorConfig, users_per_chunk: int = USERS_PER_CHUNK) -> Iterator[Chunk]:
    """All users in order, so many at a time: memory follows the chunk. The chunks' size changes no event."""
    catalogue = make_catalogue(config)
    for start in range(0, config.users, users_per_chunk):
        yield simulate_users(config, catalogue, np.arange(start, min(start + users_per_chunk, config.users)))


def simulate_users(config: SimulatorConfig, catalogue: Catalogue, numbers: np.ndarray) -> Chunk:
    """The events and truth of these user numbers (U,), ascending. Time: O(events · L); memory: O(U · W + events)."""
    accounts = _Accounts(config, catalogue, make_households(config, numbers))
    rows = []
    for step in range(config.events_max):
        rows.append(accounts.step(step))
        if not len(rows[-1]["user"]):
            break
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.argsort(columns["user"], kind="stable")  # steps are in order of time already
    columns = {name: values[order] for name, values in columns.items()}
    start = int(config.start_time.timestamp())
    kind = pl.Series(columns["kind"])
    shared = {
        "user_id": user_ids(numbers).gather(columns["user"]),
        "item_id": catalogue.items["item_id"].gather(columns["item"]),
        "event_time": pl.Series((columns["time"] + start) * 1_000_000).cast(pl.Datetime("us", "UTC")),
        "event_type": pl.Series(["play", "preview"]).gather((kind == PREVIEW).cast(pl.UInt32)),
    }
    events = pl.DataFrame({**shared, "duration_s": columns["duration"], "completion": columns["completion"]})
    truth = pl.DataFrame(
        {
            **shared,
            "kind": pl.Series(KINDS).gather(kind),
            "is_noise": kind >= ACCIDENTAL,
            "member": columns["member"],
            "phase": columns["phase"],
        },
        schema_overrides=TRUTH_SCHEMA,
    )
    return Chunk(contracts.conform(events, "events"), truth)


class _Accounts:
    """The state of U accounts between their events: clocks, sessions, series in progress, what was touched."""

    def __init__(self, config: SimulatorConfig, catalogue: Catalogue, households: Households) -> None:
        self.config, self.catalogue, self.households = config, catalogue, households
        users, members = households.moves.shape
        logits = lane_logits(config, catalogue, households.affinity)  # (U, M, 2, L)
        mass = np.bincount(catalogue.lane, weights=catalogue.attraction, minlength=len(catalogue.genres))
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True)) * mass
        self.lanes = np.cumsum(weights, axis=-1)
        self.lanes /= self.lanes[..., -1:]
        # Works are numbered by lane: a lane's are one stretch of the running sum of attractions.
        self.reach = np.cumsum(catalogue.attraction)
        ends = self.reach[np.searchsorted(catalogue.lane, np.arange(len(mass)), side="right") - 1]
        self.lane_start, self.lane_mass = ends - mass, mass
        self.by_popularity = np.cumsum(catalogue.popularity) / catalogue.popularity.sum()
        self.hours = np.cumsum(_HOURS) / _HOURS.sum()
        self.horizon = config.days * 86400
        self.touched = np.zeros((users, len(catalogue.lane)), bool)
        self.remembered = np.zeros((users, _REMEMBERED), np.int64)
        self.finished = np.zeros(users, np.int64)
        self.progress = np.full((users, members), -1, np.int64)  # the next episode of each member's series
        self.binging = np.zeros(users, bool)
        self.clock = np.full(users, -1, np.int64)
        self.member = np.zeros(users, np.int64)
        self._begin_session(np.arange(users), households.keys, -1)

    def step(self, step: int) -> dict[str, np.ndarray]:
        """One event of every account whose clock has not run out; columns of equal length."""
        who = np.flatnonzero(self.clock < self.horizon)
        keys = self.households.keys[who]
        member, time = self.member[who], self.clock[who]
        phase = (time >= self.households.moves[who, member]).astype(np.int64)
        kind, item = self._choose(who, keys, member, phase, step)
        duration, completion = self._watch(keys, kind, item, step)
        self._remember(who, member, kind, item, completion)
        ended = time + duration.astype(np.int64)
        pause = 5 + np.floor(-120 * np.log1p(-draws.uniform(keys, "pause", step))).astype(np.int64)
        self.clock[who] = ended + pause
        leaves = draws.uniform(keys, "stay", step) >= self.config.session_continues
        self._begin_session(who[leaves], keys[leaves], step)
        return {
            "user": who,
            "item": item,
            "time": time,
            "duration": duration,
            "completion": completion,
            "kind": kind,
            "member": member,
            "phase": phase,
        }

    def _choose(
        self, who: np.ndarray, keys: np.ndarray, member: np.ndarray, phase: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kind and item of each event."""
        config, catalogue = self.config, self.catalogue
        drawn = draws.uniform(keys, "kind", step)
        kind = np.full(len(who), NEW)
        kind[drawn < config.preview_rate + config.accidental_rate] = ACCIDENTAL
        kind[drawn < config.preview_rate] = PREVIEW
        following = self.progress[who, member]
        wanted = np.where(self.binging[who], config.binge_rate, config.resume_rate)
        kind[(kind == NEW) & (following >= 0) & (draws.uniform(keys, "next", step) < wanted)] = NEXT
        again = draws.uniform(keys, "again", step) < config.rewatch_rate
        kind[(kind == NEW) & (self.finished[who] > 0) & again] = REWATCH

        new = np.flatnonzero(kind == NEW)
        work = np.full(len(who), -1, np.int64)
        work[new] = self._new_works(who[new], keys[new], member[new], phase[new], step)
        tired = (kind == NEW) & (work < 0)
        kind[tired] = np.where(self.finished[who[tired]] > 0, REWATCH, ACCIDENTAL)

        place = draws.uniform(keys, "place", step)
        work = np.where(kind == PREVIEW, np.searchsorted(self.by_popularity, place, side="right"), work)
        work = np.where(kind == ACCIDENTAL, (place * len(catalogue.lane)).astype(np.int64), work)
        work = np.minimum(work, len(catalogue.lane) - 1)
        within = draws.uniform(keys, "episode", step)
        anywhere = (kind == ACCIDENTAL) | ((kind == NEW) & (draws.uniform(keys, "entry", step) < config.start_anywhere))
        episode = np.where(anywhere, (within * catalogue.episodes[work]).astype(np.int64), 0)
        item = catalogue.first[work] + episode
        known = np.minimum(self.finished[who], _REMEMBERED)
        item = np.where(kind == REWATCH, self.remembered[who, (within * known).astype(np.int64)], item)
        return kind, np.where(kind == NEXT, following, item)

    def _new_works(
        self, who: np.ndarray, keys: np.ndarray, member: np.ndarray, phase: np.ndarray, step: int
    ) -> np.ndarray:
        """A work the account never touched, by the member's taste; −1 where every attempt was refused."""
        found = np.full(len(who), -1, np.int64)
        left = np.arange(len(who))
        for attempt in range(_ROUNDS):
            if not len(left):
                break
            rows = who[left]
            lane_draw = draws.uniform(keys[left], f"lane {attempt}", step)
            lane = (self.lanes[rows, member[left], phase[left]] <= lane_draw[:, None]).sum(axis=1)
            height = self.lane_start[lane] + self.lane_mass[lane] * draws.uniform(keys[left], f"work {attempt}", step)
            work = np.minimum(np.searchsorted(self.reach, height, side="right"), len(self.reach) - 1)
            fresh = ~self.touched[rows, work]
            found[left[fresh]] = work[fresh]
            left = left[~fresh]
        return found

    def _watch(self, keys: np.ndarray, kind: np.ndarray, item: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Whole seconds and the share of the runtime. Whether a play is finished does not depend on what it is."""
        runtime = self.catalogue.runtime[item]
        drawn = draws.uniform(keys, "watch", step)
        abandoned = draws.uniform(keys, "abandon", step) < self.config.abandon_rate
        share = np.where(abandoned, 0.03 + 0.42 * drawn, 0.75 + 0.25 * drawn)
        share = np.where(kind == ACCIDENTAL, 0.01 + 0.11 * drawn, share)
        seconds = np.where(kind == PREVIEW, 15 + 75 * drawn, share * runtime)
        seconds = np.maximum(np.round(seconds), 1.0)
        return seconds, np.minimum(np.round(seconds / runtime, 4), 1.0)

    def _remember(
        self, who: np.ndarray, member: np.ndarray, kind: np.ndarray, item: np.ndarray, completion: np.ndarray
    ) -> None:
        """What the events change: works touched, series in progress, plays to come back to."""
        catalogue = self.catalogue
        work = catalogue.work[item]
        self.touched[who, work] = True
        deliberate = kind <= REWATCH
        onward = (kind == NEW) | (kind == NEXT)
        is_series = catalogue.episodes[work] > 1
        last = item == catalogue.first[work] + catalogue.episodes[work] - 1
        moved = onward & is_series
        self.progress[who[moved], member[moved]] = np.where(last, -1, item + 1)[moved]
        self.binging[who] = np.where(deliberate, moved & ~last, self.binging[who])
        kept = onward & (completion >= ENGAGED_COMPLETION)
        self.remembered[who[kept], self.finished[who[kept]] % _REMEMBERED] = item[kept]
        self.finished[who[kept]] += 1

    def _begin_session(self, who: np.ndarray, keys: np.ndarray, step: int) -> None:
        """The clock moves to the next session and its member sits down."""
        gap = np.floor(-self.households.gap[who] * np.log1p(-draws.uniform(keys, "gap", step)))
        hour = np.searchsorted(self.hours, draws.uniform(keys, "hour", step), side="right")
        second = (hour * 3600 + 3600 * draws.uniform(keys, "second", step)).astype(np.int64)
        now = self.clock[who]
        begins = (np.maximum(now, 0) // 86400 + gap.astype(np.int64)) * 86400 + second
        self.clock[who] = np.where(begins > now, begins, begins + 86400)
        self.member[who] = (draws.uniform(keys, "member", step) * self.households.sizes[who]).astype(np.int64)
        self.binging[who] = False
