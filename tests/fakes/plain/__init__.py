"""A plain HTTP service and a plain client that take and send bytes as they are, to compare two ways between them."""
