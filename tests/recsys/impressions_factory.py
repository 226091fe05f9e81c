"""Pages shown to users, as logs with impressions."""

import datetime as dt

import polars as pl

from recsys import contracts
from recsys.logs.engaged import EngagedConfig
from recsys.logs.events import canonicalise
from recsys.logs.impressions import carried, click_events
from recsys.logs.tables import Log, RawLog

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
ITEMS = [f"i{number:02d}" for number in range(30)]
Page = tuple[str, int, list[str], set[int]]  # user, hour, items shown, places clicked


def hour(count: float) -> dt.datetime:
    return START + dt.timedelta(hours=count)


def shown_frame(pages: list[Page]) -> pl.DataFrame:
    rows = [
        {
            "impression_id": f"p{number}",
            "user_id": user,
            "item_id": item,
            "shown_at": hour(at),
            "position": place + 1,
            "clicked": place in clicks,
            "click_time": hour(at) if place in clicks else None,
        }
        for number, (user, at, items, clicks) in enumerate(pages)
        for place, item in enumerate(items)
    ]
    kinds = contracts.schema("impressions")
    return pl.DataFrame(rows, schema={name: kinds[name] for name in rows[0]})


def log_of(pages: list[Page]) -> Log:
    shown = shown_frame(pages)
    items = pl.DataFrame({"item_id": ITEMS, "title": [f"Title {item}" for item in ITEMS]})
    rule = EngagedConfig(event_types=("click",))
    raw = RawLog(click_events(shown, "click").lazy(), items, {}, rule, shown)
    return carried(raw, canonicalise(raw))
