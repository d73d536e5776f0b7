"""The command line, which only handles flags."""
