"""Makers of data: each asks a model for texts, and decides which of them become
examples. See zsg_core.makers.registry."""
