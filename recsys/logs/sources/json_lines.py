"""Which line of a JSON-lines file its reader stumbled over: Polars says at which character, and not of which line."""

import json
import math
from pathlib import Path
from typing import Any


def fault(path: Path) -> str:
    """The first line that is no JSON object; else the first whose value under a key is of another kind than before
    (which may do no harm, so it comes second); "" where there is neither."""
    kinds: dict[str, str] = {}
    mixed = ""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"line {number}, {line.strip()[:100].decode(errors='replace')!r}"
            try:
                row = json.loads(line.decode(), parse_constant=_number, parse_float=_number)
            except (ValueError, RecursionError) as error:
                return f"{where} is not JSON ({error})"
            if not isinstance(row, dict):
                return f"{where} is no object"
            for key, value in row.items():
                kind = _kind(value)
                if value is not None and kinds.setdefault(key, kind) != kind:
                    mixed = mixed or f"{where}: column {key!r} holds {kind}, and {kinds[key]} in the lines before"
    return mixed


def _number(text: str) -> float:
    """Raises ValueError for what Python reads and JSON does not know."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON")
    return value


def _kind(value: Any) -> str:
    names = {str: "text", bool: "a truth value", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")
