"""Operators and layers on tensors: whatever is here computes what a plain formulation would, faster."""
