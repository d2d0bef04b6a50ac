"""The causes of an OOM kill: a module for each, with all that is known of it.

Each module of this package except `registry` is a cause, named as in `results.conclusions.Cause`. It has:

* `LABEL`: what happened, in a few words.
* `weigh(findings)`: the `Suspect` with its weight and the evidence for it; None where the cause is excluded.
* `sentence(findings)`: the sentence that answers why the kill happened.
* `cure(findings)`: sentences that say what to do.

`registry` finds the modules, and refuses to be imported where one of these is missing. docs/causes.md has the
definitions for users.

One rule says where words are: label, sentence and cure of a cause are in its module, as templates over the
findings. Evidence has no words here. It is a record (`results.conclusions.Evidence`) of a kind, its numbers
and their source, and only `render.words.evidence` puts that into a sentence.
"""
