"""Slack: cards that stay true, buttons and commands; imported only where Slack is configured."""
