"""What this instrumentor is for, in the form that OpenTelemetry's instrumentations declare it."""

_instruments = ()
_instruments_any = ("rocketmq-python-client >= 5.1.1, < 6",)

_supports_metrics = True
