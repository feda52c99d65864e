"""From a grid's YAML to resolved runs: expansion, selection, inputs, records of what was wanted."""
