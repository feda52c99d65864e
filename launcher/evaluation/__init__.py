"""Evaluators beside an array of runs, and answers that are judged elsewhere."""
