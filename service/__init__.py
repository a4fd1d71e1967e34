"""The shell around the loop: everything that waits, stores, sends or listens."""
