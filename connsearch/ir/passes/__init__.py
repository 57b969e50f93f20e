"""Passes: each rewrites a program into one that computes the same with less traffic or memory."""
