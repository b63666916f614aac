"""The gateway's decisions: no awaits, clocks, sockets or logging. The rim (adapters, pipelines) acts on them."""
