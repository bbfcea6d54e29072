"""A plugin with a misspelt hook."""

import zoo


@zoo.hookimpl
def zoo_model():
    """The hook is called zoo_models."""
    return []
