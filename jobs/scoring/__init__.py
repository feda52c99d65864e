"""The score job: scores training examples by a model, as orders read them; each kept by content."""
