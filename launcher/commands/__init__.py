"""What people type: Typer commands, each parses, calls one function, prints; tables and
questions."""
