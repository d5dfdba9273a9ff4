"""The application: one evaluation, the loop, the checks before it, and the facade over it all."""
