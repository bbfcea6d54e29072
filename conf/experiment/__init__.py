"""YAML that Hydra composes; a folder is a config group."""
