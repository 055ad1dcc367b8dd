"""Tiny problems whose right answers are known, each of which one broken part of a learner fails."""
