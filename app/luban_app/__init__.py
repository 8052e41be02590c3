"""The web service that the VMs of a Luban cluster serve.

This is its frame: health, readiness, metrics, sessions, structured logs and graceful shutdown. What it serves
to people is added as further routes (see `luban_app.application.Extension`).
"""
