"""Training in figures: schedules, shapes, memory, what is tuned, what is saved."""
