"""Tells the user what befell runs and grids: messages, how they are sent, and the end of
a job."""
