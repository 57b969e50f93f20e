"""Reading a study: its front, tables, history, importance of knobs."""
