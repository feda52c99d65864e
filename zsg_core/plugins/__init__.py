"""What are a user's plugins: Python files that a grid names, and that declare metrics,
orders, scores and formats of data?

`declarations` reads them by their syntax tree and runs nothing; `entries` enters what
they declare where the built-in ones are; `loading` runs them, in jobs only; `decorators`
are what they call.
"""
