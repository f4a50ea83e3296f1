"""Every run is a process of its own; this is how they are started, watched and ended.

``pool.py``      several runs at a time, what they report, and what happens when one fails
``calls.py``     any function in processes of their own, several at a time
``launchers.py`` the two ways of starting a process: forked from a warm template, or from nothing
``template.py``  the template: has torch imported already, so a run starts at once
``worker.py``    what happens inside the process of a run, and how it notices that the study is gone

Python's own ``multiprocessing`` is not used because its children import the user's main script again, which a study
started from an unguarded script or a notebook would not survive.
"""
