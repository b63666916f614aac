"""RocketMQ 5's gRPC protocol on asyncio. Importing its modules loads gRPC and protobuf."""
