"""RocketMQ's remoting protocol: frames, one connection, and what an administrator asks of name servers and brokers.

``frame``, ``call``, ``admin``, ``pull`` and ``stored`` do no I/O: they write requests and read responses. ``client``
(asyncio) and ``blocking`` (for tools) carry them. Nothing here loads gRPC.
"""
