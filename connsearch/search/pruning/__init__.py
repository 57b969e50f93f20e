"""Pruning: which trials are ended early, and what that saves and loses."""
