"""Many trainings: fair comparisons of recipes, and sweeps over settings."""
