"""Benchmarks: every op beside what else can do its work. ``python -m benchmarks --help``."""
