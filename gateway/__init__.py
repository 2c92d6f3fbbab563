"""The gateway: HTTP in, HTTP out. It never runs a function and never imports the runner."""
