"""The log pipeline written well in DuckDB SQL: dictionaries for ids, one window pass, one list per user to slice.

Hashes of ids and the mixing that orders a user's targets are numpy's, since SQL has neither; titles are sanitised once
per item by the library.
"""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from logs_ours import CONFIG

from recsys.seeding import stable_hash, unit_hash
from recsys.simulator.draws import mix
from recsys.simulator.generate import ENGAGED_COMPLETION
from verbalize.verbalizers.sanitise import sanitise_titles

CLEAN = r"trim(regexp_replace({0}, '[\x00-\x1f\x7f-\x9f\s]+', ' ', 'g'))"
WINDOW = tuple(
    f"epoch_us(TIMESTAMPTZ '{t}T00:00:00Z')" for t in (CONFIG.split.train_until, CONFIG.split.validate_until)
)
DAY_US = 86_400_000_000

DICTIONARIES = f"""
CREATE TABLE items AS SELECT {CLEAN.format("item_id")} AS item_id, title, year, genres,
  coalesce(parent_id, item_id) AS series, row_number() OVER (ORDER BY {CLEAN.format("item_id")}) - 1 AS item
  FROM read_parquet('{{items}}');
CREATE TABLE item_ids AS SELECT raw, item FROM (SELECT DISTINCT item_id AS raw FROM read_parquet('{{events}}'))
  JOIN items ON items.item_id = {CLEAN.format("raw")};
CREATE TABLE users AS SELECT raw, name, dense_rank() OVER (ORDER BY name) - 1 AS user_code FROM
  (SELECT raw, {CLEAN.format("raw")} AS name FROM (SELECT DISTINCT user_id AS raw FROM read_parquet('{{events}}')));
"""
EVENTS = """
CREATE TABLE events AS
  SELECT *, row_number() OVER (PARTITION BY user_code ORDER BY t, item, event_type) - 1 AS place,
    rank() OVER (PARTITION BY user_code ORDER BY t) - 1 AS past,
    min(t) OVER (PARTITION BY user_code, series) AS first_touch
  FROM (SELECT user_code, i.item, series, epoch_us(event_time) AS t, event_type,
          min(duration_s) AS duration_s, min(completion) AS completion
        FROM read_parquet('{events}') e JOIN users u ON e.user_id = u.raw JOIN item_ids i ON e.item_id = i.raw
        JOIN items ON items.item = i.item GROUP BY ALL);
"""
CANDIDATES = f"""
SELECT user_code, item, t, past, split FROM events JOIN splits USING (user_code)
WHERE completion >= {ENGAGED_COMPLETION} AND past >= {CONFIG.history_min} AND first_touch >= t
  AND ((split = 0 AND t < {WINDOW[0]}) OR (split = 1 AND t >= {WINDOW[0]} AND t < {WINDOW[1]})
       OR (split = 2 AND t >= {WINDOW[1]}))
"""
TARGETS = f"""
CREATE TABLE targets AS SELECT * FROM candidates
  QUALIFY row_number() OVER (PARTITION BY user_code ORDER BY place_in_order) <= {CONFIG.targets_per_user};
CREATE TABLE popular AS SELECT item, day, sum(n) OVER (PARTITION BY item ORDER BY day) - n AS popularity
  FROM (SELECT item, t // {DAY_US} AS day, count(*) AS n FROM events GROUP BY ALL);
CREATE TABLE shown AS SELECT item, title, title || ' (' || concat_ws('; ', CAST(year AS VARCHAR),
  nullif(array_to_string(genres, ', '), '')) || ')' AS metadata FROM items JOIN safe USING (item);
CREATE TABLE told AS SELECT user_code, list(title ORDER BY place) AS titles, list(metadata ORDER BY place) AS details,
    list(strftime(make_timestamp(t), '%Y%m%d, %A, ') || title || kind || CAST(round(duration_s / 60, 2) AS VARCHAR)
      || ' min' ORDER BY place) AS lines
  FROM (SELECT e.user_code, place, t, title, metadata, duration_s, kind FROM events e JOIN shown USING (item)
        JOIN (SELECT event_type, ', ' || upper(event_type[1]) || lower(event_type[2:]) || ', Duration: ' AS kind
              FROM (SELECT DISTINCT event_type FROM events)) USING (event_type)
        WHERE e.user_code IN (SELECT user_code FROM targets)) GROUP BY user_code;
"""
TEXTS = f"""
COPY (SELECT example_id, names.name AS user_id, items.item_id, make_timestamptz(t) AS event_time,
    ['train', 'validation', 'test'][split + 1] AS split, past, popularity,
    array_to_string(titles[first:past], '; ') AS titles, array_to_string(details[first:past], '; ') AS titles_metadata,
    array_to_string(lines[first:past], chr(10)) AS concatenation,
    array_to_string(titles[greatest(first, past - 9):past], '; ') AS recent_10
  FROM (SELECT *, greatest(past - {CONFIG.history_max} + 1, 1) AS first FROM targets)
  JOIN told USING (user_code) JOIN items USING (item) JOIN (SELECT DISTINCT user_code, name FROM users) names
    USING (user_code)
  JOIN popular ON popular.item = items.item AND day = t // {DAY_US} ORDER BY user_id, event_time, items.item_id)
TO '{{out}}' (FORMAT parquet);
"""


def same_steps(folder: Path, out: Path) -> None:
    """Events and items to targets with popularity and candidate texts."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    paths = {"events": str(folder / "events" / "*.parquet"), "items": str(folder / "items.parquet")}
    database.execute(DICTIONARIES.format(**paths))
    names = database.execute("SELECT DISTINCT user_code, name FROM users ORDER BY user_code").fetchnumpy()["name"]
    items = database.execute("SELECT item_id, title FROM items ORDER BY item").fetchnumpy()
    edges = np.cumsum([CONFIG.split.train, CONFIG.split.validation, CONFIG.split.test])
    split = np.searchsorted(edges, np.array([unit_hash("split", name) for name in names]), side="right")
    splits = pl.DataFrame({"user_code": np.arange(len(names)), "split": split})
    safe = pl.DataFrame({"item": np.arange(len(items["title"])), "title": sanitise_titles(items["title"].tolist())})
    database.register("splits", splits.to_arrow())
    database.register("safe_titles", safe.to_arrow())
    database.execute("CREATE TABLE safe AS SELECT * FROM safe_titles")
    database.execute("ALTER TABLE items DROP COLUMN title")
    database.execute(EVENTS.format(**paths))
    found = database.execute(CANDIDATES).fetchnumpy()
    user_hash = np.array([stable_hash("user_id", name) for name in names], np.uint64)
    item_hash = np.array([stable_hash("item_id", name) for name in items["item_id"]], np.uint64)
    hashes = mix(mix(mix(user_hash[found["user_code"]]) ^ item_hash[found["item"]]) ^ found["t"].astype(np.uint64))
    order = mix(hashes ^ np.uint64(stable_hash("targets", 0)))
    ids = pl.Series("example_id", [f"{value:016x}" for value in hashes.tolist()])
    candidates = pl.DataFrame({**found, "place_in_order": order}).with_columns(ids)
    database.register("candidates", candidates.to_arrow())
    database.execute(TARGETS)
    database.execute(TEXTS.format(out=out / "texts.parquet"))
