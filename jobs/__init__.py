"""The commands: one module per job, which parses arguments, makes one call and prints."""
