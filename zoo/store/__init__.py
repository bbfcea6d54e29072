"""Run folders on disk: written whole or not at all, checksummed, read back with their integrity verified."""
