"""Looks whether a run is what it says it is: its records against each other, and some
steps of it replayed."""
