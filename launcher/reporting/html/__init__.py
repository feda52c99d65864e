"""The page of a report: its sections, and the templates, style sheet and script that
they are written by."""
