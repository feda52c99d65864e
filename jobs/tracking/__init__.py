"""Delivery from journals to MLflow."""
