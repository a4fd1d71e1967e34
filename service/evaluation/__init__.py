"""`tiphys eval`: runs recorded cases whose answer is known, and counts how often we were right."""
