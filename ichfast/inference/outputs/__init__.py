"""The files that a segmented series leaves, a module each."""
