"""Fills MLflow from here, opens and serves it."""
