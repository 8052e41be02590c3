"""Evaluating homes: records and their rules, scores, the Luban ruler, and the service put together of them."""
