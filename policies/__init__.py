"""What may be done: nouns, lifecycle and rules. Pure: no I/O, no clock; `now` is an argument."""
