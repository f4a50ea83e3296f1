"""Every run is a process of its own; this is how they are started, watched and ended.

Python's own ``multiprocessing`` is not used because its children import the user's main script again, which a study
started from an unguarded script or a notebook would not survive.
"""
