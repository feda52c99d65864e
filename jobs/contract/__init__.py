"""The run folder: which files a job's folder holds, what they say, and how they are removed."""
