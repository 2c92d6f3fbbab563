"""The Node runtime."""
