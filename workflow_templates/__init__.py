"""The only actions that exist: each prechecks, acts, verifies and rolls back."""
