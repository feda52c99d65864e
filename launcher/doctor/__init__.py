"""zsg doctor: whether this machine, this cluster, this workspace and this model can do the work."""
