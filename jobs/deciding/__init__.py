"""How do claims stand on what runs have recorded? Read by reports, and by the jobs that
look at a study while it runs."""
