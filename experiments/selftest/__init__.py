"""Faults planted in the mathematics, to show that the checks can fail.

`mutants` makes the faults from the syntax tree of a theorem's file, `planting` puts one in the place of the true module, `run` lets the checks
loose on it. A fault that no check notices is printed, with the reason where one is known (`reasons`).
"""
