"""What programs may call: `import zsg` gives these functions and records their public names.

Each calls the very functions of the layers below that the command of its name calls; what
a command prints, it returns. See docs/python-api.md for what is promised of them.
"""
