"""Log lines: JSON on stderr, fixed sentences and ids.

Invariants:
- our own line is a constant sentence plus fields of `FIELDS`; arguments are never put into it;
- of an exception its type, our own `cause` and the places in the code are written, never its text;
- of a library's line only the library and the place are written: its text may quote a request or a row;
- nothing of the interpreter's own printing (tracebacks of threads, of finalisers, of a failing log call)
  goes around this.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from typing import Final, TextIO
from uuid import UUID

from broker.errors import BrokerError

OURS: Final = "broker"
"""Root of our own loggers: `logging.getLogger(__name__)` everywhere."""

FIELDS: Final = frozenset(
    {
        "address",  # of our own listeners and databases, never of a customer
        "code",
        "count",
        "decision_id",
        "event_id",
        "expire_time",
        "feed_id",
        "file",
        "finding",  # of a policy file
        "grant_id",
        "key_id",
        "method",
        "pid",
        "policy_version",
        "port",
        "reason",
        "seconds",
        "signal",
        "size",
        "tool",
        "trace_id",
        "version",
        "worker",
    }
)
"""What a line of ours may carry in `extra=`; anything else is left out."""

MAX_TEXT = 300
"""Characters of one field; a line stays a line."""

MAX_PLACES = 12
"""Innermost places of a traceback that are kept."""


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Gives the line; what is not known to be harmless is not in it."""
        ours = record.name == OURS or record.name.startswith(f"{OURS}.")
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _plain(record.msg) if ours else "library event",
        }
        if ours:
            line |= {k: _plain(v) for k, v in record.__dict__.items() if k in FIELDS}
        else:
            line["at"] = f"{record.module}:{record.lineno}"
        if record.exc_info and record.exc_info[1] is not None:
            line |= _exception(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


def _plain(value: object) -> object:
    """Gives a number, a short text, or the name of the type: an exception's str() is its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:MAX_TEXT] if isinstance(value, str | UUID) else type(value).__name__


def _exception(exc: BaseException) -> dict[str, object]:
    """Gives types along the chain, our own cause, and the innermost places in the code."""
    types: list[str] = []
    link: BaseException | None = exc
    while link is not None and len(types) < MAX_PLACES:
        types.append(type(link).__name__)
        link = link.__cause__ or link.__context__
    frames = traceback.extract_tb(exc.__traceback__)[-MAX_PLACES:]
    line: dict[str, object] = {
        "error": types,
        "places": [f"{f.filename.rpartition('site-packages/')[2]}:{f.lineno}" for f in frames],
    }
    if isinstance(exc, BrokerError):
        line["reason"] = exc.reason
        line["cause"] = _plain(exc.cause)
    return line


def set_up_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Brings every logger under one handler and closes the ways around it.

    Args:
        level: of our own lines; libraries speak from WARNING on.
        stream: stderr where none is given.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level)
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()  # uvicorn, grpc and others bring their own
            logger.propagate = True
    logging.raiseExceptions = False  # its report prints the record's arguments
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _kind, exc, _place: _report("process died", exc)
    threading.excepthook = lambda args: _report("thread died", args.exc_value)
    sys.unraisablehook = lambda args: _report("exception in a finaliser", args.exc_value)


def _report(message: str, exc: BaseException | None) -> None:
    logging.getLogger(OURS).critical(message, exc_info=exc)
