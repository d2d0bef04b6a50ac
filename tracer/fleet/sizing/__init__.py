"""Which limit should a workload have? Rules, as pure functions over rows of `lives`, `kills` and peaks.

needs — what each life says of its need: a value, or a lower bound if it was killed
suggestion — our rule
other_recommenders — the rules of the Kubernetes VPA and of Robusta's KRR
"""
