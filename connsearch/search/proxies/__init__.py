"""Zero-cost proxies: what networks that were never trained say, and whether to believe it."""
