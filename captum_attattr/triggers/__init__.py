"""Adversarial triggers: patterns, extraction, insertion, the attack and its report."""
