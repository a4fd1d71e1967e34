"""Takes a fence, a check or a rollback out of the actions' code, and sees the kit turn red.

`python -m tools.mutants [ACTION …]`, or `make mutants` for the whole catalogue. What is taken out
follows from the syntax tree by the rules in `rules`, so an action that is added later is covered
by itself. docs/mutants.md is the last run's table.
"""
