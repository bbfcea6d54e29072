"""Training and evaluation of any model under one protocol."""
