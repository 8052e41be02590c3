"""Scaling policies: what each would do now, before windows and cooldowns."""
