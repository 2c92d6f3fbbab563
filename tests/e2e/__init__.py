"""From an HTTP request to its outcome, through everything."""
