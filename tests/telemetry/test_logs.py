"""Log lines: fixed sentences and ids, never an exception's or a library's text."""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import warnings
from uuid import UUID

import pytest

from broker.errors import LedgerUnavailableError
from broker.telemetry import FIELDS, set_up_logging

PII = "Jane Roe jane@example.org"


@pytest.fixture
def lines():
    """Sets logging up as `broker serve` does, and gives what was written as parsed lines."""
    root = logging.getLogger()
    loggers = [x for x in logging.Logger.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    before = (root.handlers, root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    kept = [(x, x.handlers[:], x.propagate, x.level) for x in loggers]
    stream = io.StringIO()
    set_up_logging("INFO", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = True
    root.handlers, level, sys.excepthook, threading.excepthook, sys.unraisablehook = before
    root.setLevel(level)
    for logger, handlers, propagate, level in kept:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def fail():
    try:
        raise ValueError(f"duplicate key value: ({PII})")  # noqa: TRY301
    except ValueError as exc:
        raise LedgerUnavailableError(cause="append") from exc


class TestOurs:
    def test_line(self, lines):
        """A line is one JSON object: time, level, logger, sentence, ids."""
        event = UUID("019ab2f0-7c1e-7000-8000-000000000001")
        logging.getLogger("broker.ledger").info("event appended", extra={"event_id": event, "count": 3})
        (line,) = lines()

        assert line.pop("time").endswith("Z")
        assert line == {
            "level": "info",
            "logger": "broker.ledger",
            "message": "event appended",
            "event_id": str(event),
            "count": 3,
        }

    def test_exception_keeps_type_cause_and_place(self, lines):
        """Of an exception the types, our own cause and the code's places are written, not the text."""
        try:
            fail()
        except LedgerUnavailableError:
            logging.getLogger("broker.access").exception("read failed")
        (line,) = lines()

        assert line["error"] == ["LedgerUnavailableError", "ValueError"]
        assert (line["reason"], line["cause"]) == ("LEDGER_UNAVAILABLE", "append")
        assert "test_logs.py:" in line["places"][0]
        assert PII not in json.dumps(line)

    @pytest.mark.parametrize(
        "say",
        [
            lambda log: log.warning("read %s", PII),
            lambda log: log.warning("read", extra={"customer": PII, "email": PII}),
            lambda log: log.warning("read", extra={"reason": ValueError(PII)}),
            lambda log: log.warning("read", extra={"reason": [PII]}),
            lambda log: log.warning("read", extra={"reason": {"who": PII}}),
            lambda log: log.warning(ValueError(PII)),
            lambda log: log.warning({"who": PII}),
            lambda log: log.warning("read", stack_info=True),
            lambda log: log.warning("read %s %s", PII),  # noqa: PLE1206
            lambda log: log.warning("read", exc_info=ExceptionGroup(PII, [ValueError(PII)])),
            lambda log: log.warning("read", exc_info=type(PII.split(maxsplit=1)[0], (Exception,), {})()),
        ],
    )
    def test_careless_line(self, lines, capfd, say):
        """However carelessly a line is written, only its constant sentence and known ids arrive."""
        say(logging.getLogger("broker.access"))
        (line,) = lines()

        assert "jane@example.org" not in json.dumps(line)
        assert "jane@example.org" not in "".join(capfd.readouterr())

    def test_line_stays_a_line(self, lines):
        """A long or broken text neither breaks the line nor the log."""
        logging.getLogger("broker.x").warning("x", extra={"file": "a\n\0\ud800" * 1000})
        (line,) = lines()

        assert len(line["file"]) <= 300

    def test_no_field_is_a_records_own(self):
        """No field collides with an attribute of a log record, which would raise while logging."""
        record = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)

        assert not FIELDS & (set(record.__dict__) | {"message", "asctime"})


class TestLibraries:
    @pytest.mark.parametrize(
        "name",
        ["asyncpg", "grpc", "grpc._cython.cygrpc", "uvicorn.access", "opentelemetry.sdk", "asyncio", "x.y"],
    )
    def test_text_is_left_out(self, lines, name):
        """Of a library's line the place and an exception's type are written, nothing that it says."""
        logger = logging.getLogger(name)
        try:
            raise KeyError(PII)  # noqa: TRY301
        except KeyError:
            logger.exception("Unexpected [%s] in " + PII, PII, extra={"reason": PII})  # noqa: G003
        (line,) = lines()

        assert line["message"] == "library event"
        assert line["logger"] == name
        assert line["at"].startswith("test_logs:")
        assert line["error"] == ["KeyError"]
        assert PII not in json.dumps(line)

    def test_their_own_handlers_are_gone(self, lines, capfd):
        """A handler that a library brought no longer prints."""
        logger = logging.getLogger("uvicorn.error")
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.propagate = False
        set_up_logging("INFO", io.StringIO())
        logger.error(PII)

        assert "jane" not in "".join(capfd.readouterr())


class TestInterpreter:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_dying_thread(self, lines, capfd):
        """A thread that dies leaves a line, not a traceback."""
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

        assert [line["message"] for line in lines()] == ["thread died"]
        assert "jane" not in "".join(capfd.readouterr()) + json.dumps(lines())

    def test_failing_finaliser(self, lines, capfd):
        """An exception in a finaliser leaves a line, not a traceback."""

        class Failing:
            def __del__(self):
                fail()

        Failing()
        gc.collect()

        assert [line["message"] for line in lines()] == ["exception in a finaliser"]
        assert "jane" not in "".join(capfd.readouterr()) + json.dumps(lines())

    def test_dying_process(self, lines, capfd):
        """The last exception of a process leaves a line, not a traceback."""
        try:
            fail()
        except LedgerUnavailableError as exc:
            sys.excepthook(type(exc), exc, exc.__traceback__)

        assert [line["message"] for line in lines()] == ["process died"]
        assert "jane" not in "".join(capfd.readouterr()) + json.dumps(lines())

    def test_warning(self, lines, capfd):
        """A warning that quotes a value does not reach the log."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn(PII, stacklevel=1)

        assert [line["logger"] for line in lines()] == ["py.warnings"]
        assert "jane" not in "".join(capfd.readouterr()) + json.dumps(lines())
