"""The language model: made, tokenized, proven, its layers and loss, and how it generates."""
