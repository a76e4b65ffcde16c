"""A model of the portal, and the machine that does the same acts on both and compares them after each.

`shapes` and `expected` are the model, plain Python without a database. `world` and `seen` are the portal's side: who is in
it, and what its rows say. `both` does an act on both sides and holds the invariants; `people`, `offices`, `workers` and
`organizations` are the acts of each; `machine` is all of them. `faults` are put into the portal on purpose.
"""
