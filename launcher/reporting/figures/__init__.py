"""Draws what a report shows, by matplotlib: curves, maps of hidden states, orders."""
