"""Bond health: readings, rules, verdicts (docs/bonds.md)."""
