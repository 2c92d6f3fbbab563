"""The NATS adapter: the only place that imports `nats`."""
