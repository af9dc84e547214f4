"""The configuration: one documented tree of defaults, YAML files over it, ``KEY VALUE`` pairs over those."""
