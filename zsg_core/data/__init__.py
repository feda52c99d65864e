"""Data sets: examples, how they are read, split, mixed and worded."""
