"""A backbone with PE methods and heads as one model, the partition of its parameters, and its files."""
