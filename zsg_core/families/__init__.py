"""What each family of decoders is made of: class defaults, names, counts. One module a family."""
