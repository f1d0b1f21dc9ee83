"""Text from elsewhere that is shown: it ends no line and drives no terminal.

Ids, names and paths may be anybody's, from a table, a sidecar or a folder. In a log a line break among them would begin
a record of its own, and an escape sequence may do anything to the terminal on which it is read.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

# Control characters of ASCII and Latin-1, breaks of lines, what turns the direction of a text, and halves of pairs,
# which no log file takes.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    r"""Return *text* with its control characters escaped, line breaks among them.

    Examples
    --------
    >>> one_line("a\nb\x1b[2J")
    'a\\nb\\x1b[2J'
    """
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def printable(text: str) -> str:
    """Return *text* with its control characters escaped, but for line breaks and tabs: our own sentences have some."""
    return text if text.isprintable() else _CONTROL.sub(_escaped_unless_layout, text)


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _escaped_unless_layout(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escaped(found)
