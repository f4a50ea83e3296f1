"""Section 5.5 of the thesis, on ``digits``: NORMAL, hard parameter sharing, and what is left without each of its parts."""
