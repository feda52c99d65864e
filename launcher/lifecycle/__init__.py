"""What comes after submission: cancel, retry, free."""
