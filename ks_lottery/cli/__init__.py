"""The command line: `ks-lottery COMMAND`, one file per command."""
