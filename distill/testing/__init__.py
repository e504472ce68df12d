"""A chat server on loopback that misbehaves on request: a teacher for tests and benchmarks."""
