"""The report of a sweep: best so far, importance, parallel coordinates, trade-offs, every trial.

Validation values are shown as what they are: the best of many tries is optimistic, and the report says so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from verbalize.report.data import ReportData
from verbalize.report.html import render_page
from verbalize.report.sweep_views import sweep_parts
from verbalize.report.trials import STATES, SweepTable


def sweep_report(table: SweepTable, final: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> str:
    """The sweep as one self-contained HTML document.

    `final` is the comparison of the retrained best with the default on test users, the contents of final.json: it then
    opens the page. The same data gives the same bytes.
    """
    counts = ", ".join(
        f"{number} {state}" for state in STATES if (number := sum(t.state == state for t in table.trials))
    )
    spent = sum(t.seconds for t in table.trials if t.seconds is not None and math.isfinite(t.seconds))
    work = f"{spent / 3600:,.1f} hours" if spent >= 3600 else f"{spent:,.0f} s"
    lead = f"{counts or 'no trials'}; {work} of work"
    return render_page(
        ReportData(title=f"Sweep {table.name}"), extra=sweep_parts(table, final), lead=lead, notes=tuple(notes)
    )
