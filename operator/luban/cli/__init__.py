"""The `luban` command."""
