"""Is it the same model in a new shell? What two sets of weights, and two sets of answers, say about a common past.

The way: `weights` (safetensors only, one tensor at a time) → `groups` (which units may be renumbered) → evidence of a
pair (`relation`, `exact`, `aligned`) → `multiple` (one error rate over all pairs) → `verdict` → `tree`.
Beside it, without weights: `answers` of stored runs → `blackbox` (pure functions) → `behaviour` (verdicts). Behaviour
alone never says that weights are shared.
"""
