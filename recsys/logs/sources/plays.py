"""Play logs: start, stop and heartbeat signals folded into views, one `play` event each.

Signals are ordered per user, item and device; the rules below read each row together with the row before it, so the
whole fold is one sort and a few column expressions.

| found | becomes |
|---|---|
| silence longer than `gap_s` | the view ends at its last signal; what follows opens another one |
| `start` | opens a view; directly after another `start` (a retry) it continues that one |
| no `stop` | the view ends at its last signal |
| no `start` | a view opens at the first `heartbeat` or `resume` |
| `pause` | time stops counting until `resume` or `start`, or a heartbeat unless players send those while paused too |
| `seek` | changes the place, not the time watched: a jump to the end completes nothing |
| anything but `start` and `resume` after a `stop` | ignored: late deliveries |
| only `stop`, `pause`, `seek` | no view |
| signals out of order, or twice | sorted; exact repeats of user, item, device, time and signal dropped |
| overlapping views of one item on two devices (a hand-over) | one view, never longer than the time it spans |

Every treatment is counted. A view is dated at its start, but its duration is known at its end: where a user's views of
different items overlap (a household on two screens), a history can show the whole length of a view that was still
running; `views_running_at_the_next_start` says how many there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from recsys.logs.text import clean

SIGNALS = ("start", "resume", "heartbeat", "seek", "pause", "stop")
"""What a player says, in the order in which signals of one moment are read."""
EVENT_TYPE = "play"
_YEAR = 366 * 86_400
_KEY = ("user_id", "item_id", "device")
_FOLDED = (*_KEY, "event_time", "signal")


@dataclass(frozen=True)
class FoldConfig:
    """`gap_s`: silence after which a view is over, in seconds. Longer than the interval of heartbeats; in a log without
    heartbeats, longer than the longest item, or every view ends where it starts. `heartbeats_while_paused`: True where
    players send heartbeats during a pause, so that a heartbeat does not resume."""

    gap_s: float
    heartbeats_while_paused: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.gap_s <= _YEAR:
            raise InputError(
                f"plays.gap_s {self.gap_s}",
                "must be positive and at most a year",
                "set it in seconds, e.g. gap_s: 1800",
            )


def fold(
    signals: pl.LazyFrame, config: FoldConfig, runtimes: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Views as rows of `events` (event_time is the start, duration_s the time played), and the count of every
    treatment.

    `signals` holds user_id, item_id, event_time, signal, and maybe device, surface and columns of the item, of which a
    view takes the first value; `runtimes` holds item_id, runtime_s (seconds) and gives the completion, at most 1.
    Raises InputError for a signal outside `SIGNALS`.
    """
    ordered, counts = _ordered(signals)
    marked = _marked(ordered.lazy(), config).collect()
    carried = [name for name in ordered.columns if name not in _FOLDED and name != "row"]
    views = _views(marked.lazy(), carried).collect()
    played = views.filter("played")
    counts |= {
        "signals_after_stop_ignored": int(marked["stray"].sum()),
        "views_never_playing_dropped": len(views) - len(played),
        "views_without_start": int((~played["started"]).sum()),
        "views_without_stop": int((~played["stopped"]).sum()),
    }
    merged = _merged(played.lazy(), carried).collect()
    counts["views_merged_across_devices"] = len(played) - len(merged)
    events = _completed(merged, runtimes)
    longer = pl.col("duration_s") > pl.col("runtime_s") if "runtime_s" in events.columns else pl.lit(False)
    running = merged.sort("user_id", "event_time", "end").select(
        ((pl.col("user_id") == pl.col("user_id").shift(-1)) & (pl.col("end") > pl.col("event_time").shift(-1))).sum()
    )
    counts |= {
        "views": len(events),
        "views_longer_than_runtime": events.select(longer.fill_null(False).sum()).item(),
        "views_running_at_the_next_start": running.item(),
    }
    kept = [name for name in carried if name not in ("surface", "runtime_s")]
    names = ["user_id", "item_id", "event_time", "event_type", "duration_s", "completion", "surface", *kept]
    return events.select(names), counts


def _ordered(signals: pl.LazyFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Signals of known users and items by user, item, device, time and `SIGNALS`, each once."""
    names = signals.collect_schema().names()
    device = clean(pl.col("device")) if "device" in names else pl.lit(None, pl.String).alias("device")
    read = signals.with_columns(clean(pl.col("user_id")), clean(pl.col("item_id")), device).with_row_index("row")
    frame = read.collect()
    unknown = frame.filter(~pl.col("signal").is_in(SIGNALS))["signal"]
    if len(unknown):
        raise InputError(
            f"plays.signal, {len(unknown)} of {len(frame)} rows, e.g. {unknown[0]!r}",
            f"a signal is one of {list(SIGNALS)}",
            "declare `values: {theirs: ours}` (null leaves a signal out)",
        )
    counts = {"signals_read": len(frame)}
    known = frame.drop_nulls(["user_id", "item_id", "signal"])
    counts["signals_without_user_item_or_signal_dropped"] = len(frame) - len(known)
    place = pl.col("signal").replace_strict({name: place for place, name in enumerate(SIGNALS)}, return_dtype=pl.Int8)
    # Carried values take part in the order, so that the first of a view does not depend on the order of the input.
    carried = [
        name for name, dtype in frame.schema.items() if name not in (*_FOLDED, "row") and not isinstance(dtype, pl.List)
    ]
    frame = known.sort(*_KEY, "event_time", place, *carried, "row", nulls_last=True)
    same_key = _same(_KEY)
    late = same_key & (pl.col("row") < pl.col("row").shift()) & (pl.col("event_time") > pl.col("event_time").shift())
    repeated = same_key & _same(("event_time", "signal"))
    counts["signals_out_of_order"] = frame.select(late.fill_null(False).sum()).item()
    once = frame.filter(~repeated)
    counts["signals_repeated_dropped"] = len(frame) - len(once)
    return once, counts


def _marked(signals: pl.LazyFrame, config: FoldConfig) -> pl.LazyFrame:
    """Adds `view` (number), `seconds` (played since the row before) and `stray`.

    `control` is the last start, resume, pause or stop that holds at a row; a row that follows silence holds `resume`
    unless it says otherwise, so filling forward never reaches into the view before.
    """
    signal, elapsed = pl.col("signal"), pl.col("event_time") - pl.col("event_time").shift()
    silence = ~_same(_KEY) | (elapsed > pl.duration(microseconds=round(config.gap_s * 1e6))).fill_null(True)
    frame = signals.with_columns(silence.alias("silence"))
    # First what ends a view, since a late pause after the stop is no pause.
    ends = pl.when(signal.is_in(["start", "resume", "stop"])).then(signal)
    frame = frame.with_columns(pl.when("silence").then(ends.fill_null(pl.lit("resume"))).otherwise(ends).alias("ends"))
    over = (pl.col("ends").forward_fill().shift() == "stop") & ~pl.col("silence")
    said = pl.when((signal == "pause") & ~over.fill_null(False)).then(signal).otherwise(ends)
    frame = frame.with_columns(pl.when("silence").then(said.fill_null(pl.lit("resume"))).otherwise(said).alias("said"))
    frame = frame.with_columns(pl.col("said").forward_fill().shift().alias("before"))
    if not config.heartbeats_while_paused:
        resumes = (signal == "heartbeat") & (pl.col("before") == "pause") & ~pl.col("silence")
        frame = frame.with_columns(pl.when(resumes).then(pl.lit("resume")).otherwise("said").alias("said"))
        frame = frame.with_columns(pl.col("said").forward_fill().shift().alias("before"))
    opens = (
        pl.col("silence")
        | ((signal == "start") & (signal.shift() != "start"))
        | ((signal == "resume") & (pl.col("before") == "stop"))
    )
    counted = pl.col("before").is_in(["start", "resume"]) & (signal != "start") & ~opens
    return frame.with_columns(
        opens.cum_sum().alias("view"),
        pl.when(counted).then(elapsed.dt.total_microseconds() / 1e6).otherwise(0.0).alias("seconds"),
        ((pl.col("before") == "stop") & ~opens).fill_null(False).alias("stray"),
    )


def _views(marked: pl.LazyFrame, carried: Iterable[str]) -> pl.LazyFrame:
    signal, counts = pl.col("signal"), pl.col("seconds") > 0
    return marked.group_by("view", maintain_order=True).agg(
        *(pl.col(name).first() for name in (*_KEY, "event_time")),
        pl.max_horizontal(pl.col("event_time").filter(counts).max(), pl.col("event_time").first()).alias("end"),
        pl.col("seconds").sum().alias("duration_s"),
        signal.is_in(["start", "resume", "heartbeat"]).any().alias("played"),
        (signal == "start").any().alias("started"),
        (signal == "stop").any().alias("stopped"),
        *(pl.col(name).drop_nulls().first() for name in carried),
    )


def _merged(views: pl.LazyFrame, carried: Iterable[str]) -> pl.LazyFrame:
    """Views of one user and item that overlap, on whatever devices, as one."""
    item = ("user_id", "item_id")
    views = views.sort(*item, "event_time", "end", "device", nulls_last=True)
    running = pl.col("end").cum_max().over(item)
    views = views.with_columns((pl.col("event_time") < running.shift().over(item)).fill_null(False).alias("overlaps"))
    views = views.with_columns((~pl.col("overlaps")).cum_sum().alias("view"))
    span = (pl.col("end").max() - pl.col("event_time").first()).dt.total_microseconds() / 1e6
    return views.group_by("view", maintain_order=True).agg(
        *(pl.col(name).first() for name in (*item, "event_time")),
        pl.col("device").drop_nulls().first(),
        pl.col("end").max(),
        pl.min_horizontal(pl.col("duration_s").sum(), span).alias("duration_s"),
        *(pl.col(name).drop_nulls().first() for name in carried),
    )


def _completed(views: pl.DataFrame, runtimes: pl.DataFrame | None) -> pl.DataFrame:
    """Adds event_type, surface (else the device) and completion: time played by the runtime, at most 1."""
    if runtimes is not None:
        known = runtimes.select(clean(pl.col("item_id")), "runtime_s").drop_nulls().unique("item_id", keep="any")
        views = views.drop("runtime_s", strict=False).join(known, on="item_id", how="left", maintain_order="left")
    has_runtime = "runtime_s" in views.columns
    share = pl.col("duration_s") / pl.col("runtime_s") if has_runtime else pl.lit(None, pl.Float64)
    known_share = pl.when(share.is_finite()).then(share.clip(0.0, 1.0))
    surface = pl.coalesce("surface", "device") if "surface" in views.columns else pl.col("device")
    return views.with_columns(
        pl.lit(EVENT_TYPE).alias("event_type"), known_share.alias("completion"), surface.alias("surface")
    )


def _same(names: Iterable[str]) -> pl.Expr:
    """Whether a row repeats the values of the row before."""
    first = pl.int_range(pl.len()) == 0
    return pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift()) for name in names) & ~first
