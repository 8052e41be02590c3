"""observe -> plan -> apply -> report, for one cluster. Knows ports, never adapters."""
