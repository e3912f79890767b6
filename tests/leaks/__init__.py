"""Personal data is in the records database and in answers, and nowhere else."""
