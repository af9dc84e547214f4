"""Pictures of arrays; nothing here reads a configuration."""
