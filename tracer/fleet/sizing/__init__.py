"""Which limit should a workload have? Rules, as pure functions over rows of `lives`, `kills` and peaks.

needs — what each life says of its need: a value, or a lower bound if it was killed
kaplan_meier — the share of lives that need more than a given limit, with killed lives as lower bounds
outlook — what further runs will need, and the limit that costs least
rates — how well a number of runs knows a rate
suggestion — our rule
vertical_pod_autoscaler — the rule of the Kubernetes VPA
resource_recommender — the rule of Robusta's KRR
"""
