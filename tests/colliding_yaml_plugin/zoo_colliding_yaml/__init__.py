"""A plugin with a YAML file that zoo-example has as well."""

import zoo


@zoo.hookimpl
def zoo_config_package() -> str:
    """Holds model/bow_wide.yaml."""
    return "zoo_colliding_yaml.conf"
