"""The causes of an OOM kill, one module each.

Each module of this package except `registry` is a cause, named as in `results.conclusions.Cause`. It ends
with `CAUSE`, a `cause_record.CauseRecord`: all that other modules know about it. `registry` finds the
modules, and refuses to be imported where one of them or one of their fields is missing. docs/causes.md has
the definitions for users.

The label, sentence and cure of a cause are in its module, as templates over the findings. Evidence has no
words here: it is a record (`results.conclusions.Evidence`) of a kind, its numbers and their source. Only
`render.words.evidence` makes a sentence of it.
"""
