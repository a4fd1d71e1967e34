"""Read, reason, propose. Nothing in here holds a credential that can change anything."""
