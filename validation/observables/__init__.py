"""Observables: a run's series -> numbers with standard errors, and profiles with their blocks."""
