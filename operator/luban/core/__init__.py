"""Decisions: pure functions from (spec, observation, memory, now) to a plan. No I/O, no clock, no logging."""
