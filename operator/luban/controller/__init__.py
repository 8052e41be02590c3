"""The kopf program: handlers, wake-ups, and the wiring of adapters into the runtime."""
