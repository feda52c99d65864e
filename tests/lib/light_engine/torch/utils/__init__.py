"""A package, for what lies in it."""
