"""One module per real thing behind a port. Adapters never import each other."""
