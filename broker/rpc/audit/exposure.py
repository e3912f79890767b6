"""ReportExposure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from broker.audit.exposed import CustomerExposure, Totals
from broker.audit.exposure import classes_for, exposed
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.reporting import Reporting
from broker.rpc.audit.selecting import selected
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

SECONDS = 280.0


class ExposureMethods:
    """The RPC over what was given out."""

    def __init__(self, reporting: Reporting) -> None:
        """Takes where it reads."""
        self._reporting = reporting

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        return ()

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        asked, told = pb.ReportExposureRequest, pb.ReportExposureResponse
        return (StreamedMethod(f"/{AUDIT}/ReportExposure", asked, told, self._report, SECONDS),)

    async def _report(
        self, call: Call, request: pb.ReportExposureRequest
    ) -> AsyncGenerator[pb.ReportExposureResponse, None]:
        at = self._reporting
        selection = await selected(call, request, at, "exposure")
        if selection is None:
            yield pb.ReportExposureResponse(totals=_totals(Totals(), {}))
            return
        totals = Totals()
        async for batch in exposed(at.reports, selection, totals):
            classes = await classes_for(at.questions, totals)
            for one in batch:
                yield pb.ReportExposureResponse(customer=_customer(one, classes))
        classes = await classes_for(at.questions, totals)
        yield pb.ReportExposureResponse(totals=_totals(totals, classes))


def _customer(one: CustomerExposure, classes: Mapping[str, str]) -> pb.ExposedCustomer:
    times = {"first": timestamp(one.first), "last": timestamp(one.last)}
    return pb.ExposedCustomer(**{**one.as_mapping(classes), **times})


def _totals(totals: Totals, classes: Mapping[str, str]) -> pb.ExposureTotals:
    counted = totals.as_mapping(classes)
    return pb.ExposureTotals(
        customers=totals.customers,
        reads=totals.reads,
        unreadable=totals.unreadable,
        first=timestamp(totals.first) if totals.first else None,
        last=timestamp(totals.last) if totals.last else None,
        fields=[pb.ExposureCount(name=name, **count) for name, count in counted["fields"].items()],
        classes=[pb.ExposureCount(name=name, **count) for name, count in counted["classes"].items()],
    )
