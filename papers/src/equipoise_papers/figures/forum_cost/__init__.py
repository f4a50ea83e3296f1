"""Figure 3.1 of the thesis: seconds and memory of a step against T and against p."""
