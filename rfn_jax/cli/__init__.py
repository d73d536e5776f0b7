"""The command line: flags only."""
