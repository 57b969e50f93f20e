"""JSON Schemas of the files that people write, for editors. `python -m connsearch.schemas` rewrites them."""
