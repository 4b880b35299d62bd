"""What a device without torch runs, and the command that makes it from a checkpoint."""
