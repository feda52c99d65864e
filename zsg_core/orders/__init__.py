"""Orders of training data: distances, nearest neighbours, arrangements."""
