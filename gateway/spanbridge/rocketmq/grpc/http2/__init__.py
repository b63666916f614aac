"""The little of HTTP/2 (RFC 9113) that calls of a gRPC client need, on the caller's event loop.

gRPC for Python wakes a thread and the loop for each message of a stream. Here many messages come with one read.
"""
