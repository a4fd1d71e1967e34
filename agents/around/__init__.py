"""The metrics and changes of a service and its neighbours, as the search for causes reads them.

What is asked and what an answer means is here, without I/O; `agents/neighbourhood.py` asks.
"""
