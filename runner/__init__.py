"""The runner: delivery in, outcome out. It never speaks HTTP and never imports the gateway."""
