"""The trace that a request is part of, if the program that uses the SDK traces at all."""

from __future__ import annotations

import importlib
import re
import sys

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent() -> str | None:
    """Return the current span of OpenTelemetry as a ``traceparent`` (W3C Trace Context).

    A program that uses OpenTelemetry has imported it; for others nothing is. Baggage and
    ``tracestate`` stay here: the sandbox has no business with them. A tracer that fails is
    no reason for a request to fail.
    """
    if "opentelemetry" not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    try:
        importlib.import_module("opentelemetry.propagate").inject(carrier)
    except Exception:  # noqa: BLE001
        return None
    value = carrier.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None
