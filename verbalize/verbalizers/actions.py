"""Action-based verbalization: one symbol per event, {drop, keep} x {plain, with metadata}, executed deterministically.

The policy reads `action_prompts`: an instruction, one line of statistics, then one line per event, oldest first, each
ending with the slot marker after which it chooses a symbol. `execute` turns chosen symbols into the text the
recommender reads. Symbols are the integers 0..3 here; their token ids are the policy's business.

Deviation from the paper, which emits a keep bit and a metadata bit per interaction: both bits are one four-valued
symbol, so one token decides one event. As in the paper the metadata bit of a dropped event has no effect.

The policy may see more than it may write: ratings, completions and ages of events appear in the prompt only, the
executed text shows title, year and genres (`ActionConfig.fields`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.errors import InputError
from recsys.later import later
from verbalize.verbalizers import template_expressions as expressions
from verbalize.verbalizers.base import guard_inputs, memories
from verbalize.verbalizers.sanitise import sanitise_history

DROP, DROP_METADATA, KEEP, KEEP_METADATA = range(4)
ALPHABET = (DROP, DROP_METADATA, KEEP, KEEP_METADATA)
CONSTANT_POLICIES = {
    "drop_all": DROP,
    "drop_all_metadata": DROP_METADATA,
    "keep_all": KEEP,
    "keep_all_metadata": KEEP_METADATA,
}

INSTRUCTION = (
    "Choose what a recommender should know about this viewer. "
    "Answer each event with A or B to drop it, C to keep its title, D to keep its title with year and genres."
)


@dataclass(frozen=True)
class ActionConfig:
    """How histories are shown to the action policy and how its actions are executed.

    marker: the slot; ends every event line, occurs nowhere else in a prompt, and must be one token of the policy's
    tokenizer. symbols: the texts whose next-token probabilities are the policy, in the order of `ALPHABET`; one token
    each. history_shown: only so many most recent events are shown and decided (None: all); earlier ones are dropped.
    metadata_fields: what "with metadata" adds after a title. show_rating_in_prompt: show the policy the user's
    rating, or the completion where there is no rating. show_age_in_prompt: show the policy how many days before the
    cutoff an event happened. show_event_type_in_prompt: show the policy the event's type ("play", "preview"), which in
    play logs tells what nobody chose. line_end: follows each slot. Tokenizers that join punctuation with a following
    line end (GPT-4 style) need " \\n".
    """

    marker: str = " ->"
    symbols: tuple[str, str, str, str] = (" A", " B", " C", " D")
    history_shown: int | None = None
    metadata_fields: tuple[str, ...] = expressions.METADATA_FIELDS
    show_rating_in_prompt: bool = True
    show_age_in_prompt: bool = True
    line_end: str = "\n"
    instruction: str = INSTRUCTION
    show_event_type_in_prompt: bool = later(False)

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(ALPHABET):
            raise InputError(
                f"symbols {self.symbols}", "an alphabet has four different symbols", "set four, one per action"
            )
        if self.history_shown is not None and self.history_shown < 1:
            raise InputError(
                f"history_shown {self.history_shown}", "must show at least one event", "set it to 1 or more"
            )
        if ">" not in self.marker:
            # Sanitising leaves no ">" in any title: with it in the marker, no title can forge a slot.
            raise InputError(f"marker {self.marker!r}", "must contain '>', which no title can contain", "use ' ->'")
        if self.marker in self.instruction:
            raise InputError(f"instruction {self.instruction!r}", f"contains the marker {self.marker!r}", "reword it")
        expressions.event_title_with_metadata(self.metadata_fields)

    @property
    def fields(self) -> frozenset[str]:
        """History fields that an executed text may show; compare with `templates_within(config.fields)`."""
        return frozenset({"title", *self.metadata_fields})


def shown_history(config: ActionConfig) -> pl.Expr:
    """The sanitised events that are decided, oldest first."""
    history = pl.col("history")
    return sanitise_history(history if config.history_shown is None else history.list.tail(config.history_shown))


def history_lengths(inputs: pl.DataFrame, config: ActionConfig) -> list[int]:
    """Number of decided events H_b of each history: the length of its action list."""
    n = pl.col("history").list.len().fill_null(0).cast(pl.Int64)
    shown = n if config.history_shown is None else n.clip(upper_bound=config.history_shown)
    return inputs.select(shown).to_series().to_list()


def action_prompts(inputs: pl.DataFrame, config: ActionConfig) -> list[str]:
    """B prompts, each with exactly H_b slots.

    Layout: instruction, memory where the inputs hold any, profile of the shown history, then "3d ago, Heat (1995;
    Action, Crime), rated 4.0 ->" per event. The age of an event needs `cutoff_time`; both are known before the target.
    An empty history gives the instruction and the profile of nothing.
    """
    inputs = guard_inputs(inputs).with_columns(history=shown_history(config))
    history = pl.col("history")
    titled = history.list.eval(expressions.event_title_with_metadata(config.metadata_fields))
    parts = [pl.col("titled")]
    if config.show_age_in_prompt:
        age = (pl.col("cutoff_time") - pl.col("event_time")).dt.total_days().cast(pl.String)
        parts.insert(0, pl.concat_str(age, pl.lit("d ago")))
    if config.show_event_type_in_prompt:
        parts.append(pl.col("event_type"))
    if config.show_rating_in_prompt:
        rated = pl.concat_str(pl.lit("rated "), pl.col("rating").round(1).cast(pl.String))
        percent = (pl.col("completion") * 100).round(0).cast(pl.Int32).cast(pl.String)
        parts.append(pl.coalesce(rated, pl.concat_str(pl.lit("watched "), percent, pl.lit("%"))))
    lines = (
        inputs.select("cutoff_time", "history", row=pl.int_range(pl.len()), titled=titled)
        .explode("history", "titled")
        .unnest("history")
        .filter(pl.col("titled").is_not_null())
        .select("row", line=pl.concat_str(parts, separator=", ", ignore_nulls=True) + config.marker + config.line_end)
        .group_by("row", maintain_order=True)
        .agg(pl.col("line").str.join(""))
    )
    profiles = inputs.select(expressions.profile(history, ratings=config.show_rating_in_prompt)).to_series()
    bodies = _per_row(lines, "line", len(inputs))
    remembered = [f"{text}\n" if text else "" for text in memories(inputs)]
    return [
        f"{config.instruction}\n{memory}{profile}\n{body}"
        for memory, profile, body in zip(remembered, profiles, bodies, strict=True)
    ]


def execute(inputs: pl.DataFrame, actions: Sequence[Sequence[int]], config: ActionConfig) -> list[str]:
    """Carry out one action list per history: B inputs, B lists of H_b symbols -> B texts.

    Kept events in chronological order, joined by "; ", plain or with metadata; nothing kept gives "". Cost: one pass
    over all events. Raises InputError when there is not one action list per input, one action per shown event, or a
    symbol outside `ALPHABET`.

    >>> import datetime as dt
    >>> from recsys.contracts import schema
    >>> day = dt.datetime(2025, 6, 8, tzinfo=dt.timezone.utc)
    >>> event = {"item_id": "1", "title": "Heat", "year": 1995, "genres": ["Action"], "event_time": day,
    ...          "event_type": "rating", "rating": 4.0, "duration_s": None, "completion": None}
    >>> history = pl.Series([[event, event | {"title": "Alien"}]], dtype=schema("examples")["history"])
    >>> frame = pl.DataFrame({"example_id": ["x"], "cutoff_time": [day], "history": history})
    >>> execute(frame, [[KEEP_METADATA, KEEP]], ActionConfig())
    ['Heat (1995; Action); Alien']
    """
    check_actions(inputs, actions, config)
    history = pl.col("history")
    texts = (
        guard_inputs(inputs)
        .with_columns(history=shown_history(config))
        .select(
            row=pl.int_range(pl.len()),
            action=pl.Series("action", [list(row) for row in actions], dtype=pl.List(pl.Int8)),
            plain=history.list.eval(expressions.field("title")),
            metadata=history.list.eval(expressions.event_title_with_metadata(config.metadata_fields)),
        )
    )
    kept = (
        texts.explode("action", "plain", "metadata")
        .filter(pl.col("action") >= KEEP)
        .select("row", text=pl.when(pl.col("action") == KEEP_METADATA).then("metadata").otherwise("plain"))
        .group_by("row", maintain_order=True)
        .agg(pl.col("text").str.join(expressions.EVENT_SEPARATOR))
    )
    return _per_row(kept, "text", len(inputs))


def check_actions(inputs: pl.DataFrame, actions: Sequence[Sequence[int]], config: ActionConfig) -> None:
    """Raise InputError unless `actions` holds one list per input, of one known symbol per shown event."""
    if len(actions) != len(inputs):
        raise InputError(
            f"{len(actions)} action lists", f"need one for each of {len(inputs)} histories", "pass one list per row"
        )
    for index, (row, length) in enumerate(zip(actions, history_lengths(inputs, config), strict=True)):
        if len(row) != length:
            raise InputError(
                f"{len(row)} actions in row {index}",
                f"its history shows {length} events and each needs exactly one",
                "use the same ActionConfig for the prompt and the execution",
            )
        unknown = set(row) - set(ALPHABET)
        if unknown:
            raise InputError(
                f"actions {sorted(unknown)} in row {index}", f"symbols are {ALPHABET}", "decode token ids first"
            )


def constant_actions(name: str, lengths: Sequence[int]) -> list[list[int]]:
    """The same action for every event: one of `CONSTANT_POLICIES`. Raises InputError for another name.

    >>> constant_actions("keep_all_metadata", [2, 0])
    [[3, 3], []]
    """
    if name not in CONSTANT_POLICIES:
        raise InputError(f"constant policy {name!r}", "is not known", f"use one of {', '.join(CONSTANT_POLICIES)}")
    return [[CONSTANT_POLICIES[name]] * length for length in lengths]


def _per_row(grouped: pl.DataFrame, column: str, n: int) -> list[str]:
    """Texts by `row`, "" for rows that are absent."""
    rows = pl.DataFrame({"row": pl.int_range(n, eager=True)})
    return rows.join(grouped, on="row", how="left", maintain_order="left")[column].fill_null("").to_list()
