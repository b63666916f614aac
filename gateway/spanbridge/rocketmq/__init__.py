"""RocketMQ 5 adapter: an asyncio gRPC producer."""
