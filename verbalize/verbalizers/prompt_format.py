"""What a policy's prompt looks like, as one hash: a policy trained on one format must not be asked in another.

The hash is of the prompt of a made-up history, not of settings, so it notices a changed template as well as a changed
option, and does not notice an option that changes nothing. Memory is left out: a policy may be given some, or none.
"""

import datetime as dt
import hashlib
import json
from typing import Any

import polars as pl

from recsys.contracts import schema
from verbalize.verbalizers.rewrite import RewriteConfig, rewrite_messages
from verbalize.verbalizers.slots import SlotConfig, slot_prompts

_EVENTS = 128  # more than any recipe shows, so that a limit on what is shown is seen
_CUTOFF = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)


def prompt_format(config: SlotConfig | RewriteConfig) -> str:
    """16 hexadecimal digits that change when the prompt of a policy with this configuration does."""
    shown: Any
    if isinstance(config, RewriteConfig):
        shown = rewrite_messages(_probe(), config)
    else:
        shown = [slot_prompts(_probe(), config), config.symbols]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _probe() -> pl.DataFrame:
    """One history with everything an event may have, and one event with nothing but a title."""
    events: list[dict[str, Any]] = [
        {
            "item_id": str(place),
            "title": f"Title {place}",
            "year": 1990 + place % 7,
            "genres": ["Drama", "War"][: 1 + place % 2],
            "event_time": _CUTOFF - dt.timedelta(hours=7 * (_EVENTS - place)),
            "event_type": "play",
            "rating": 0.5 * (1 + place % 10) if place % 3 else None,
            "duration_s": 60.0 * place,
            "completion": place / _EVENTS,
        }
        for place in range(_EVENTS)
    ]
    events[0] |= dict.fromkeys(("year", "genres", "rating", "duration_s", "completion"))
    columns: dict[str, Any] = {
        "example_id": pl.String,
        "cutoff_time": pl.Datetime("us", "UTC"),
        "history": schema("examples")["history"],
    }
    return pl.DataFrame([{"example_id": "probe", "cutoff_time": _CUTOFF, "history": events}], schema=columns)
