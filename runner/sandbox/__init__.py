"""The sandbox: worker processes that run user code, and the guards that end them."""
