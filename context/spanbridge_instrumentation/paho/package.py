"""What this instrumentor is for, in the form that OpenTelemetry's instrumentations declare it."""

_instruments = ()
_instruments_any = ("paho-mqtt >= 2.0, < 3",)

_supports_metrics = True
