"""Variants of models."""
