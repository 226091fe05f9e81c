"""Candidate texts straight from a log: what `candidate_texts` writes of histories, each event written once.

A user's targets share most of their events, so that in a log of millions an event stands in several histories. A
history is a range of the log's rows (`recsys.logs.history`), and most templates join texts of single events
(`EventTexts`): these are written once per event that any history shows, or once per item where they say nothing but
what the catalogue says, and a history's text is a range of them. No history is made for them.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys import contracts
from recsys.errors import InputError
from recsys.logs.history import histories
from recsys.logs.pools import Past
from recsys.logs.tables import Log
from verbalize.verbalizers.by_value import by_value
from verbalize.verbalizers.sanitise import sanitise_history, sanitise_text
from verbalize.verbalizers.templates import METADATA, EventTexts, Template, candidate_texts, template

_OF_ITEMS = METADATA | {"series"}
_BATCH_TARGETS = 10_000  # joined at once: intermediate results stay small enough for their memory to be used again


def example_texts(log: Log, examples: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """`candidate_texts` of B examples (user_id, cutoff_time, history) that `log` holds all events of: (B, len(names)).

    Raises InputError for an unknown name, and where a history is longer than the user's past in `log`.
    """
    moments = examples["cutoff_time"].dt.epoch("us").to_numpy()
    starts, ends = Past(log, log.items).spans_before(examples["user_id"], moments)
    lengths = examples["history"].list.len().cast(pl.Int64).to_numpy()
    if (short := lengths > ends - starts).any():
        raise InputError(
            f"{int(short.sum())} examples, e.g. of user {examples['user_id'].filter(pl.Series(short))[0]!r}",
            "show more events than the log holds before their cutoff",
            "pass the log that the examples were built from",
        )
    return span_texts(log, ends - lengths, lengths, names)


def span_texts(log: Log, starts: np.ndarray, lengths: np.ndarray, names: Sequence[str]) -> pl.DataFrame:
    """Texts of the B histories that are the `lengths` (B,) >= 1 rows of `log.events` from `starts` (B,): one String
    column per name, (B, len(names)), equal to `candidate_texts` of these histories.

    The histories are made only for templates that are more than the joined texts of their events: profiles, sessions.
    Raises InputError for an unknown name.
    """
    chosen = [template(name) for name in names]
    shown, places = _shown(starts, lengths, len(log.events))
    joined = [entry for entry in chosen if isinstance(entry.build, EventTexts)]
    texts = _event_texts(log, shown, joined)
    spans = pl.DataFrame({"start": places, "length": lengths})
    expressions = [_range_joined(texts[entry.name], entry.build).alias(entry.name) for entry in joined]  # type: ignore[arg-type]
    parts = [part.select(expressions) for part in spans.iter_slices(_BATCH_TARGETS)] or [spans.select(expressions)]
    others = [entry.name for entry in chosen if not isinstance(entry.build, EventTexts)]
    if others:
        made = histories(pl.Series(starts), pl.Series(lengths), log.events, log.items, log.codes.items)
        inputs = pl.DataFrame({"history": made}).with_columns(example_id=None, cutoff_time=None)
        return pl.concat(parts).hstack(candidate_texts(inputs, others)).select(names)
    return pl.concat(parts).select(names)


def _shown(starts: np.ndarray, lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(the rows of `size` that any of the ranges covers (K,), ascending; the place of each start among them (B,))."""
    depth = np.bincount(starts, minlength=size + 1) - np.bincount(starts + lengths, minlength=size + 1)
    covered = np.cumsum(depth)[:size] > 0
    return np.flatnonzero(covered), (np.cumsum(covered) - 1)[starts]


def _event_texts(log: Log, shown: np.ndarray, chosen: list[Template]) -> dict[str, pl.Series]:
    """Each template's text of each of these rows, (K,)."""
    safe = pl.select(sanitise_history(pl.lit(_as_events(log.items).implode()), once=True).explode()).to_series()
    items = pl.Series(log.codes.items[shown])
    wanted = set().union(*(entry.fields for entry in chosen if not entry.fields <= _OF_ITEMS))
    told = [name for name in log.events.columns if name in wanted]
    logged = log.events.select(told)[shown]
    if "event_type" in told:
        logged = logged.with_columns(by_value(pl.col("event_type"), sanitise_text))
    described = safe.struct.unnest().select(name for name in _OF_ITEMS if name in wanted)
    events = _as_events(logged.hstack(described[items]))
    return {
        entry.name: _written(safe, entry).gather(items) if entry.fields <= _OF_ITEMS else _written(events, entry)
        for entry in chosen
    }


def _as_events(frame: pl.DataFrame) -> pl.Series:
    """Rows as the structs that histories are made of; what is not there is null."""
    dtype = contracts.schema("examples")["history"]
    assert isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)
    fields = [
        pl.col(field.name) if field.name in frame.columns else pl.lit(None, field.dtype).alias(field.name)
        for field in dtype.inner.fields
    ]
    return frame.select(pl.struct(fields)).to_series()


def _written(events: pl.Series, entry: Template) -> pl.Series:
    """The text of each event, as if all were one history."""
    assert isinstance(entry.build, EventTexts)
    return pl.select(pl.lit(events.implode()).list.eval(entry.build.event).explode()).to_series()


def _range_joined(texts: pl.Series, build: EventTexts) -> pl.Expr:
    """`texts` from `start`, `length` of them, joined; of the last ones only where the template cuts."""
    length = pl.col("length") if build.last is None else pl.min_horizontal("length", build.last)
    end = pl.col("start") + pl.col("length")
    # As in `histories`: the rows of all lists are replaced at once and the lists keep their bounds.
    gathered = pl.element().map_batches(texts.gather, return_dtype=pl.String, is_elementwise=True)
    return pl.int_ranges(end - length, end).list.eval(gathered).list.join(build.separator).fill_null("")
