"""Multi-task data hyper-cleaning (thesis, section 3.7.1): which training labels are wrong, learned on clean validation data."""
