"""One module for each kind of page: from records and scores to what a template shows."""
