"""Untrusted text made harmless to look at: control and direction-changing characters become visible, everything else
stays.
"""

import unicodedata

_KEPT = "\n\t"


def visible(text: str) -> str:
    """Replace control, format and surrogate characters (ANSI escapes, bidirectional overrides, zero-width marks) by
    their code point.

    Newlines and tabs stay. Markup is not touched: escaping is the template's work.

    >>> visible("The \\u202eelat\\x1b[31m Tale")
    'The ‹U+202E›elat‹U+001B›[31m Tale'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else f"‹U+{ord(c):04X}›" for c in text
    )


def one_line(text: str, limit: int | None = None) -> str:
    """`visible` text without line breaks, cut to `limit` characters with an ellipsis."""
    line = " ".join(visible(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"
