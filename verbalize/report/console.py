"""The report as plain text for a terminal: the same numbers as the HTML, aligned, no colours, no control characters."""

from collections.abc import Sequence

import polars as pl

from verbalize.report.catalogue import catalogue_view
from verbalize.report.claims import format_claim, format_target
from verbalize.report.data import ENOUGH, ReportData
from verbalize.report.text import one_line
from verbalize.report.trait_views import trait_groups
from verbalize.report.views import arm_rows, claim_verdict, comparison_rows


def render_console(data: ReportData) -> str:
    """Headline, arms, comparisons, what texts do and looks; ends with a newline."""
    blocks = [
        _head(data),
        _claims(data),
        _arms(data),
        _comparisons(data),
        _catalogue(data),
        *_traits(data),
        _looks(data),
        "\n".join(one_line(n) for n in data.notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns two spaces apart; the first `left` flush left, numbers flush right.

    >>> print(table(["arm", "n"], [["titles", "12"], ["log", "3"]]))
    arm      n
    ------  --
    titles  12
    log      3
    """
    cells = [[one_line(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    cells.insert(1, ["-" * w for w in widths])
    return "\n".join(
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _head(data: ReportData) -> str:
    lines = [one_line(data.title), *([one_line(data.subtitle)] if data.subtitle else [])]
    return "\n".join([*lines, "=" * max(len(line) for line in lines)])


def _claims(data: ReportData) -> str:
    rows = [[c.id, format_claim(c).partition(" (target")[0], format_target(c), claim_verdict(c)] for c in data.claims]
    return table(["claim", "measured", "target", "reading"], rows, left=4) if rows else ""


def _arms(data: ReportData) -> str:
    view = arm_rows(data)
    if not view["arms"]:
        return ""
    header = ["text × recommender", "Recall@1", "95% interval", *view["other_metrics"], "tokens", "n", "effective"]
    rows = [
        [
            f"{'*' if a['learned'] else ' '} {a['verbalizer']} × {a['recommender']}",
            a["recall"],
            a["range"],
            *a["others"],
            a["tokens"],
            a["n"],
            a["n_effective"].strip("()"),
        ]
        for a in view["arms"]
    ]
    foot = [
        text
        for text, shown in (
            ("* learned", any(a["learned"] for a in view["arms"])),
            (f"chance {view['chance']}", view["chance"]),
        )
        if shown
    ]
    return "\n".join([table(header, rows), *([" · ".join(foot)] if foot else [])])


def _comparisons(data: ReportData) -> str:
    views = comparison_rows(data)["comparisons"]
    rows = [
        [
            v["label"],
            v["metric"],
            v["value"],
            v["range"],
            v["both"],
            v["mde"],
            v["p"],
            v["n_effective"].strip("()"),
            v["verdict"],
        ]
        for v in views
    ]
    if not rows:
        return ""
    foot = f"too small to conclude: fewer than {ENOUGH:,} effective rankings, and the interval holds 0"
    return "\n".join(
        [
            table(
                [
                    "comparison",
                    "metric",
                    "difference",
                    "95% interval",
                    "both",
                    "detectable",
                    "p (Holm)",
                    "effective",
                    "reading",
                ],
                rows,
                left=2,
            ),
            *([foot] if any(r[-1] == "too small to conclude" for r in rows) else []),
        ]
    )


def _catalogue(data: ReportData) -> str:
    view = catalogue_view(data)
    if view is None:
        return ""
    header = ["among the whole catalogue", *(part for metric in view["metrics"] for part in (metric, "95% interval"))]
    rows = [
        [
            f"{'*' if row['learned'] else ' '} {row['verbalizer']} × {row['recommender']}",
            *(part for cell in row["cells"] for part in (cell["value"], cell["range"])),
            row["n"],
            row["n_effective"].strip("()"),
        ]
        for row in view["rows"]
    ]
    foot = [f"chance {view['chance']}"] if view["chance"] else []
    return "\n".join([table([*header, "n", "effective"], rows), *foot])


def _traits(data: ReportData) -> list[str]:
    """Shares without their intervals, which would not fit a line; the HTML report has both."""
    blocks = []
    for group in trait_groups(data):
        header = [group["name"], *(measure.label for measure in group["measures"])]
        rows = [
            [f"{'*' if arm['learned'] else ' '} {arm['name']}", *(value for value, _ in arm["cells"])]
            for arm in group["arms"]
        ]
        blocks.append(table(header, rows))
    return blocks


def _looks(data: ReportData) -> str:
    repeated = (
        pl.DataFrame({"claim": [x["claim_id"] for x in data.looks]})
        .group_by("claim")
        .len()
        .filter(pl.col("len") > 1)
        .sort("claim")
    )
    return (
        "\n".join(f"test users were opened {n} times for {one_line(claim)}" for claim, n in repeated.rows())
        if data.looks
        else ""
    )
