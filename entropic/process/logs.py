"""Loggers of which each record is one line, whatever the ids, names and paths in it are."""

from __future__ import annotations

import logging

from entropic.printable import one_line, printable

__all__ = ["get_logger"]

_formatter = logging.Formatter()


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which escapes control characters in what it is given."""
    log = logging.getLogger(name)
    log.addFilter(_make_one_line)
    return log


def _make_one_line(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    shown = one_line(message)
    if shown != message:
        record.msg, record.args = shown, None
    if record.exc_info and record.exc_text is None:
        # Indented: no line of it looks like a record.
        lines = printable(_formatter.formatException(record.exc_info)).splitlines()
        record.exc_text = "\n".join(f"  {line}" for line in lines)
    return True
