"""Stands for torch on a node that lacks it: a job ends in a moment with what that does."""

raise ImportError("no torch on this node")
