"""Transfer: what a study begins with: presets, and trials of other studies."""
