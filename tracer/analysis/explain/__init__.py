"""The cause of each kill, from a trace or from a kernel log, and the distance to the limit without a kill.

`postmortem`, `kill_report`, its sources `recorded_facts` and `logged_kills`, and `survivors` stand above all
rooms. A room imports only from rooms above it in this list:

    measure — the findings on a kill: memory, cache, growth, thrashing, allocators, limit owner, victims
    cause_record — a cause as its consumers know it: weight and traits
    victim_selection — badness, the ranking of the candidates, and changes that would alter it
    sizing — the minimum limit under which the same work would have survived
    evidence — the evidence for a verdict, as kinds and numbers without words
    weighing — the rules by which several causes are weighed
    causes — a module for each cause: its weight and its traits
    runtimes — the runtimes of programs: their numbers, their lines and their advice
    words — the sentences of a report: its summary, its advice, and the names in them
"""
