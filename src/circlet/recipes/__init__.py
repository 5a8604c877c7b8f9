"""Built-in recipes: one YAML file per experiment."""
