"""Every setting of a run, its type, default and meaning."""
