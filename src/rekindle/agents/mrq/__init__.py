"""Model-based representations for Q-learning (MR.Q)."""
