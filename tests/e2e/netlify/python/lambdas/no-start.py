raise RuntimeError("it fails while it is loaded")
