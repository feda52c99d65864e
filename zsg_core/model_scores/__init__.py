"""Scores of training examples by a model: one module for each, pure, the model passed in."""
