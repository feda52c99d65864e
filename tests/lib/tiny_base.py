"""The settings and texts that tests make a tiny base model of."""

BASE = {
    "kind": "tiny",
    "hidden": 64,
    "layers": 2,
    "heads": 4,
    "vocab": 400,
    "context": 128,
    "seed": 3,
}
TEXTS = [
    f"User: count {n} apples and {n * n} pears\nAssistant: {n + n * n}"
    for n in range(200)
]
