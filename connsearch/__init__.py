"""connsearch."""
