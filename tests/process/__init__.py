"""Real runners, workers and signals."""
