"""Statistics: curves, effects and the verdicts of claims."""
