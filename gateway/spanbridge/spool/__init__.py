"""The spool: messages on disk while RocketMQ is away.

``disk`` is the file layer, ``records`` the bytes, ``store`` the numbered records of a directory, ``segments`` the
thread that they live on. Nothing is imported here: the command line reads stores without asyncio.
"""
