"""The robustness study: what comes from outside is read or refused, never a crash, a hang or a page of text."""
