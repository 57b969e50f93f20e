"""Trials for tools that track experiments."""
