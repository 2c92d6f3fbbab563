handle = None
