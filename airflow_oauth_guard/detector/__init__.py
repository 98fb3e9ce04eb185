"""What the detector does in a pass: ask, judge, find the cause, learn."""
