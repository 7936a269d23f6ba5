"""The commands: one module per job, which parses options, calls the library and prints."""
