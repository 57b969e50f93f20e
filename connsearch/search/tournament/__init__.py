"""Tournaments: topologies and aggregations against each other, all else equal."""
