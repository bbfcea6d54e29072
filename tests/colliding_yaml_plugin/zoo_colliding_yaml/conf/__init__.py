"""Extra YAML of the plugin."""
