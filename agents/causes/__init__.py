"""What changed first, what only followed, and which component is the likely cause: pure statistics.

Nothing here does I/O or reads a clock, and no name, label or value of a component steers it: the
same numbers under other names give the same answer. numpy is loaded when it is first used.
"""
