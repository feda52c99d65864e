"""What an answer is worth: published metrics, each a small pure module."""
