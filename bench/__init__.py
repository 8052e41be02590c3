"""Benchmarks. Each prints exactly one line of JSON on standard output; none is a test."""
