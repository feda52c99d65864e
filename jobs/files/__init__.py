"""Files and folders: whose they are, whether they are ordinary, and what a model's are called."""
