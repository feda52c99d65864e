"""The command line, and everything that talks to the cluster."""
