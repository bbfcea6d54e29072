"""Adversaries for the tests of lineage: a stored run changed so that its descent is harder to see, as a run of its own.

`chain` reads what is asked for, `parent` rebuilds the stored model, `structure` finds which units may be exchanged,
`surface`, `symmetries` and `learning` change it, `publishing` evaluates the result and writes its run folder, which
`place` keeps out of the study that it was made from.
"""
