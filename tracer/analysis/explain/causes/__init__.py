"""The causes of an OOM kill, one module each.

Each module of this package except `registry` is a cause, named as in `results.conclusions.Cause`. It has:

* `LABEL`: what happened, in a few words.
* `weigh(findings)`: the `Suspect` with its weight and the evidence for it; None where the cause is excluded.
* `sentence(findings)`: the sentence that explains the kill.
* `cure(findings)`: sentences of advice.

`registry` finds the modules, and refuses to be imported where one of these is missing. docs/causes.md has the
definitions for users.

The label, sentence and cure of a cause are in its module, as templates over the findings. Evidence has no
words here: it is a record (`results.conclusions.Evidence`) of a kind, its numbers and their source. Only
`render.words.evidence` makes a sentence of it.
"""
