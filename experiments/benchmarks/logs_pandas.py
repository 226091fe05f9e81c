"""The log pipeline written well in pandas: integer codes, one sort, shifts and searches instead of group-wise
functions, text built once per item, day and duration."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from logs_ours import CONFIG, ORDERED, Laps

from recsys.logs.examples import ExamplesConfig
from recsys.seeding import stable_hash, unit_hash
from recsys.simulator.draws import mix
from verbalize.verbalizers.sanitise import sanitise_titles

DAY_US = 86_400_000_000
VALUES = ("duration_s", "completion", "rating")
KEY = ["user", "time", "item", "type"]
SPLITS = np.array(["train", "validation", "test", ""])
_BLANK = r"[\x00-\x1f\x7f-\x9f\s]+"


class Work:
    """The steps in order, each using what the one before left."""

    def __init__(self, events: pd.DataFrame, items: pd.DataFrame, config: ExamplesConfig) -> None:
        self.raw, self.items, self.config = events, items, config

    def canonicalise(self) -> None:
        """Ids are cleaned and ranked once per distinct value, everything after works on integers."""
        events, items = self.raw, self.items
        item_index = pd.Index(items["item_id"].str.replace(_BLANK, " ", regex=True).str.strip())
        rank = np.argsort(np.argsort(item_index.to_numpy()))
        user_raw, users = pd.factorize(events["user_id"])
        user_rank, self.users = pd.factorize(
            pd.Index(users).str.replace(_BLANK, " ", regex=True).str.strip(), sort=True
        )
        item_raw, item_ids = pd.factorize(events["item_id"])
        known = item_index.get_indexer(pd.Index(item_ids).str.replace(_BLANK, " ", regex=True).str.strip())
        item = np.where(known < 0, -1, rank[known])[item_raw]
        kinds, self.types = pd.factorize(events["event_type"], sort=True)
        self.values = [name for name in VALUES if name in events]
        frame = pd.DataFrame(
            {
                "user": user_rank[user_raw].astype(np.int32),
                "time": events["event_time"].astype("int64").to_numpy(),
                "item": item.astype(np.int32),
                "type": kinds.astype(np.int8),
                **{name: events[name].to_numpy() for name in self.values},
            }
        )
        if str(events["event_time"].dtype).startswith("datetime64[ns"):
            frame["time"] //= 1000
        frame = frame[frame["item"] >= 0]
        since = frame["time"] - frame["time"].min()
        moment = frame["user"].astype(np.int64) * (since.max() + 1) + since  # user and time as one key of the sort
        order = np.lexsort([frame["type"], frame["item"], moment])
        keys = [frame[name].to_numpy()[order] for name in KEY]
        same = np.logical_and.reduce([values[1:] == values[:-1] for values in keys])
        # Only rows that repeat a key are ordered by their values too: the smallest stays.
        first, repeated = np.append(True, ~same), np.append(False, same) | np.append(same, False)
        ties = order[repeated]
        values = [frame[name].to_numpy()[ties] for name in reversed(self.values)]
        order[repeated] = ties[np.lexsort([*values, np.cumsum(first)[repeated]])]
        self.frame = frame.iloc[order[first]].reset_index(drop=True)
        self.user, self.time, self.item = (self.frame[name].to_numpy() for name in ("user", "time", "item"))
        self.tied = (self.user[1:] == self.user[:-1]) & (self.time[1:] == self.time[:-1])
        self.ties = int((np.append(False, self.tied) | np.append(self.tied, False)).sum())
        self.ordered = items.iloc[np.argsort(rank)].reset_index(drop=True)

    def choose(self) -> None:
        """Engaged, in split and window, enough history, discovery by series, at most so many a user by seeded hash."""
        config, rule = self.config, self.config.engaged
        user, time, item = self.user, self.time, self.item
        row = np.arange(len(self.frame))
        past_end = np.maximum.accumulate(np.where(np.append(True, ~self.tied), row, 0))
        past = past_end - np.maximum.accumulate(np.where(np.append(True, user[1:] != user[:-1]), row, 0))
        edges = np.cumsum([config.split.train, config.split.validation, config.split.test])
        split_of = np.searchsorted(edges, np.array([unit_hash("split", name) for name in self.users]), side="right")
        window = (config.split.train_until, config.split.validate_until)
        first, second = (int(pd.Timestamp(text, tz="UTC").timestamp() * 1e6) for text in window)
        split = split_of[user]
        inside = (
            ((split == 0) & (time < first))
            | ((split == 1) & (time >= first) & (time < second))
            | ((split == 2) & (time >= second))
        )
        if rule.rating_at_least is not None:
            keep = self.frame["rating"].to_numpy() >= rule.rating_at_least
        else:
            keep = self.frame["completion"].to_numpy() >= rule.completion_at_least
        # The same item at the same moment, once as each event type, is one target.
        again = np.append(False, keep[:-1] & self.tied & (item[1:] == item[:-1]))
        keep &= ~again & inside & (past >= config.history_min)
        series, _ = pd.factorize(self.ordered["parent_id"].fillna(self.ordered["item_id"]))
        touch = user.astype(np.int64) * (series.max() + 1) + series[item]
        columns = {"row": row, "user": user, "item": item, "time": time, "past": past, "past_end": past_end}
        columns |= {"split": split, "touch": touch}
        targets = pd.DataFrame({name: values[keep] for name, values in columns.items()})
        relevant = np.isin(touch, targets["touch"].unique(), kind="sort")
        first_touch = pd.Series(time[relevant], index=touch[relevant])
        first_touch = first_touch[~first_touch.index.duplicated(keep="first")]  # in time order within a user
        targets = targets[first_touch.reindex(targets["touch"]).to_numpy() >= targets["time"].to_numpy()].copy()
        user_hash = np.array([stable_hash("user_id", name) for name in self.users], np.uint64)
        item_hash = np.array([stable_hash("item_id", name) for name in self.ordered["item_id"]], np.uint64)
        hashes = mix(mix(user_hash[targets["user"]]) ^ item_hash[targets["item"]])
        targets["hash"] = mix(hashes ^ targets["time"].to_numpy().astype(np.uint64))
        targets["order"] = mix(targets["hash"].to_numpy() ^ np.uint64(stable_hash("targets", 0)))
        capped = targets.sort_values(["user", "order"])
        capped = capped[capped.groupby("user").cumcount() < config.targets_per_user]
        self.targets = capped.sort_values("row").reset_index(drop=True)
        self.lengths = np.minimum(self.targets["past"].to_numpy(), config.history_max)
        self.starts = self.targets["past_end"].to_numpy() - self.lengths

    def histories(self) -> pd.DataFrame:
        """A long table, one row per target and event."""
        ends = np.cumsum(self.lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - self.lengths, self.lengths)
        shown = self.frame.take(within + np.repeat(self.starts, self.lengths))
        details = self.ordered[["item_id", "title", "year", "genres"]].take(shown["item"]).reset_index(drop=True)
        flat = pd.DataFrame({"target": np.repeat(np.arange(len(self.targets)), self.lengths)}).join(details)
        flat["event_time"] = pd.to_datetime(shown["time"].to_numpy(), unit="us", utc=True)
        flat["event_type"] = self.types[shown["type"].to_numpy()]
        flat[self.values] = shown[self.values].to_numpy()
        return flat

    def texts(self) -> dict[str, list[str]]:
        """The text of each event that any history shows, once, then slices of it joined."""
        title = np.array(sanitise_titles(self.ordered["title"].tolist()), object)
        metadata = np.array(
            [
                f"{name} ({'; '.join([str(year), *([', '.join(genres)] if len(genres) else [])])})"
                for name, year, genres in zip(title, self.ordered["year"], self.ordered["genres"], strict=True)
            ],
            object,
        )
        size = len(self.frame) + 1
        depth = np.bincount(self.starts, minlength=size) - np.bincount(self.starts + self.lengths, minlength=size)
        covered = np.cumsum(depth)[:-1] > 0
        shown, starts = self.frame[covered], (np.cumsum(covered) - 1)[self.starts]
        days, day = np.unique(shown["time"] // DAY_US, return_inverse=True)
        dates = pd.to_datetime(days, unit="D").strftime("%Y%m%d, %A, ").to_numpy(object)
        seconds, watched = np.unique(shown["duration_s"], return_inverse=True)
        minutes = [f"Duration: {value!r} min" for value in np.round(seconds / 60, 2).tolist()]
        rest = np.array([f", {kind.title()}, {duration}" for kind in self.types for duration in minutes], object)
        titles, details = title[shown["item"]], metadata[shown["item"]]
        lines = dates[day] + titles + rest[shown["type"].to_numpy() * np.int64(len(minutes)) + watched]
        spans = list(zip(starts.tolist(), (starts + self.lengths).tolist(), strict=True))
        return {
            "titles": ["; ".join(titles[start:end]) for start, end in spans],
            "titles_metadata": ["; ".join(details[start:end]) for start, end in spans],
            "concatenation": ["\n".join(lines[start:end]) for start, end in spans],
            "recent_10": ["; ".join(titles[max(start, end - 10) : end]) for start, end in spans],
        }

    def count_popularity(self) -> None:
        """Cumulative events of an item by day, looked up just before the target's day."""
        n_days = 100_000
        key, count = np.unique(self.item.astype(np.int64) * n_days + self.time // DAY_US, return_counts=True)
        running = np.append(0, np.cumsum(count))
        base = self.targets["item"].to_numpy().astype(np.int64) * n_days
        day = self.targets["time"].to_numpy() // DAY_US
        self.targets["popularity"] = running[np.searchsorted(key, base + day)] - running[np.searchsorted(key, base)]

    def table(self) -> pl.DataFrame:
        """The targets."""
        targets = self.targets
        return pl.DataFrame(
            {
                "example_id": [f"{value:016x}" for value in targets["hash"].tolist()],
                "user_id": self.users.to_numpy()[targets["user"]].astype(str),
                "item_id": self.ordered["item_id"].to_numpy()[targets["item"]].astype(str),
                "event_time": pl.Series(targets["time"].to_numpy()).cast(pl.Datetime("us", "UTC")),
                "split": SPLITS[targets["split"]],
                "is_discovery": True,
                "past": targets["past"].to_numpy(),
                "popularity": targets["popularity"].to_numpy(),
            }
        )


def same_steps(folder: Path, out: Path) -> dict[str, float]:
    """Events and items to targets with popularity and candidate texts. Returns seconds per step."""
    lap = Laps()
    work = Work(pd.read_parquet(folder / "events"), pd.read_parquet(folder / "items.parquet"), CONFIG)
    work.canonicalise()
    lap(ORDERED)
    work.choose()
    lap("targets")
    work.count_popularity()
    lap("popularity")
    table = work.table().drop("is_discovery")
    table = table.with_columns(pl.Series(name, texts) for name, texts in work.texts().items())
    lap("texts")
    table.write_parquet(out / "texts.parquet")
    lap("writing")
    return lap.seconds
