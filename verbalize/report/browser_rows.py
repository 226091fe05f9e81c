"""The example browser's rows: texts as marked stretches, a log with who told what, the slate with scores."""

from typing import Any

from verbalize.report.data import ArmText, ExampleView, ReportData
from verbalize.report.figures import SERIES
from verbalize.report.views import signed

OUTCOMES = ("missed by all", "arms disagree", "found by all")
_TONES = dict(zip(OUTCOMES, ("bad", "open", "good"), strict=True))


def browser_parts(data: ReportData) -> dict[str, Any]:
    """`examples`, and what the reader may choose by: `users` and `outcomes`, each with its number of examples."""
    rows = [_example(example) for example in data.examples]
    users = sorted({row["user"] for row in rows if row["user"]}, key=lambda name: (len(name), name))
    return {
        "examples": rows,
        "users": [(user, sum(row["user"] == user for row in rows)) for user in users],
        "outcomes": [(o, n) for o in OUTCOMES if (n := sum(row["outcome"] == o for row in rows))],
    }


def _example(example: ExampleView) -> dict[str, Any]:
    hits = sum(arm.rank == 1 for arm in example.arms)
    outcome = OUTCOMES[2 if hits == len(example.arms) else 0 if hits == 0 else 1]
    slate = [
        {
            "title": title,
            "target": place == example.target_index,
            "scores": [(signed(a.scores[place], 2), a.scores[place] == max(a.scores)) for a in example.arms],
        }
        for place, title in enumerate(example.slate)
    ]
    return {
        "label": example.label,
        "user": example.user,
        "target": example.slate[example.target_index],
        "outcome": outcome,
        "tone": _TONES[outcome],
        "reading": "every arm found it" if outcome == OUTCOMES[2] else f"{hits} of {len(example.arms)} arms found it",
        "slate": slate,
        "arms": [_arm(arm, i, example.events) for i, arm in enumerate(example.arms)],
        "history": [
            {"line": line, "kept": [place in arm.reading.kept for arm in example.arms]}
            for place, line in enumerate(example.history)
        ],
        "read": any(arm.reading.spans for arm in example.arms),
    }


def _arm(arm: ArmText, place: int, events: tuple[str, ...]) -> dict[str, Any]:
    kept, added = len(arm.reading.kept), arm.reading.added
    return {
        "name": arm.arm,
        "text": arm.text,
        "spans": [(span.text, span.kind) for span in arm.reading.spans],
        "rank": arm.rank,
        "tokens": arm.tokens,
        "series": place % SERIES,
        "kept": f"keeps {kept} of {len(events)} events" + (f", adds {added} words" if added else ""),
        "dropped": [title for i, title in enumerate(events) if i not in arm.reading.kept],
    }
