"""Numbers in documents: written by the ledger, between markers, and checked against it.

`<!-- claim:ID -->text<!-- /claim -->` holds one number, `<!-- claim:ID.p_holm -->text<!-- /claim -->` a primary claim's
adjusted p; `<!-- claims -->table<!-- /claims -->` on lines of their own holds the table of all.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recsys.storage import write_text
from verbalize.report.claims import Claim, format_claim, format_target

_CLAIM = re.compile(r"(<!-- claim:(?P<id>[^\s>]+) -->)(?P<text>.*?)(<!-- /claim -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- claims -->)(?P<text>.*?)(<!-- /claims -->)", re.DOTALL)
_ANY = re.compile(r"<!-- /?claims?(:[^>]*)? -->")
P_HOLM = ".p_holm"
DOCUMENTS = ("*.md", "docs/**/*.md", "experiments/**/*.md")


def documents(root: Path) -> list[Path]:
    """The Markdown files that may quote claims, sorted."""
    return sorted({path for pattern in DOCUMENTS for path in root.glob(pattern)})


def update_text(text: str, claims: Mapping[str, Claim]) -> str:
    """The document with every marked number and table rewritten; an unknown id is left as it is (`check_text` reports
    it).
    """

    def write(match: re.Match[str]) -> str:
        number = marked(match["id"], claims)
        return match[0] if number is None else match[1] + number + match[4]

    text = _CLAIM.sub(write, text)
    return _TABLE.sub(lambda m: f"{m[1]}\n{claims_table(list(claims.values()))}\n{m[3]}", text)


def marked(name: str, claims: Mapping[str, Claim]) -> str | None:
    """What a marker of this name holds: a claim's number, or with ".p_holm" behind the id its adjusted p. None for a
    claim that is not there or was not adjusted.
    """
    if name in claims:
        return format_claim(claims[name])
    claim = claims.get(name.removesuffix(P_HOLM))
    return None if claim is None or claim.p_holm is None else f"{claim.p_holm:.3f}"


def check_text(text: str, claims: Mapping[str, Claim]) -> list[str]:
    """What is wrong with a document's markers, one sentence each; [] when every number is the ledger's."""
    problems = []
    for match in _CLAIM.finditer(text):
        number = marked(match["id"], claims)
        if number is None:
            problems.append(f"marker names the unknown claim {match['id']}")
        elif match["text"] != number:
            problems.append(f"{match['id']} reads {match['text']!r}, the ledger says {number!r}")
    if any(m["text"] != f"\n{claims_table(list(claims.values()))}\n" for m in _TABLE.finditer(text)):
        problems.append("the table of claims is not the ledger's")
    strays = len(_ANY.findall(text)) - 2 * (len(_CLAIM.findall(text)) + len(_TABLE.findall(text)))
    if strays:
        problems.append(f"{strays} claim marker(s) without a partner")
    return problems


def claims_table(claims: Sequence[Claim]) -> str:
    """A Markdown table of all claims, missed ones marked, sorted by id."""
    lines = ["| claim | measured | target | | n (effective) |", "|---|---|---|---|---|"]
    for claim in sorted(claims, key=lambda c: c.id):
        measured = format_claim(claim).partition(" (target")[0]
        status = {"missed": "**missed**", "not measured": "**not measured**", "no target": ""}.get(
            claim.status, claim.status
        )
        count = f"{claim.n:,} ({claim.n_effective:,.0f})" if claim.value is not None else ""
        lines.append(
            f"| `{claim.id}`: {_cell(claim.statement)} | {_cell(measured)} | {format_target(claim)} "
            f"| {status} | {count} |"
        )
    return "\n".join(lines)


def update_markers(root: Path, claims: Mapping[str, Claim]) -> list[Path]:
    """Rewrite the documents under `root`; returns those that changed."""
    changed = []
    for path in documents(root):
        before = path.read_text(encoding="utf-8")
        after = update_text(before, claims)
        if after != before:
            write_text(after, path)
            changed.append(path)
    return changed


def check_markers(root: Path, claims: Mapping[str, Claim]) -> dict[Path, list[str]]:
    """Problems by document; documents without any are left out."""
    found = {path: check_text(path.read_text(encoding="utf-8"), claims) for path in documents(root)}
    return {path: problems for path, problems in found.items() if problems}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
