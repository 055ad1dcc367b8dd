"""One file per method of reincarnation; each says what it adds to an agent, and when."""
