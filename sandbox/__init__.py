"""A cluster for people without one: the outside, simulated over real HTTP."""
