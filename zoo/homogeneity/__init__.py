"""How alike the models of a panel are: behaviour, failures, the kinship scale, the leaderboard, representations.

Nothing heavy is imported here; `zoo.homogeneity.measures` is what listing the measures needs.
"""
