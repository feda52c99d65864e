"""What runs on the nodes: prepare and train jobs, the journal, and its delivery to MLflow."""
