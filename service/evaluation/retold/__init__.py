"""Reads evidence that people have retold in English into the facts that playbooks decide on."""
