"""The merge lab: every published way to merge models, exact, in bounded memory."""
