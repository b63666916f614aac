"""What the instrumentors share: tracer and instruments, processing spans, contexts, patching, error handling.

Nothing here imports a client library. The rule for all of it: a message goes its way whatever happens in here.
"""
