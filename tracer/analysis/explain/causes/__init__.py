"""The causes of an OOM kill, one module each.

Each module of this package except `registry` is a cause, named as in `results.kill.Cause`. It ends
with `CAUSE`, a `cause_record.CauseRecord`: all that other modules know about it. `registry` finds the
modules, and refuses to be imported where one of them or one of their fields is missing. docs/causes.md has
the definitions for users.

A cause has no words here: `words.cause_words` has its label, its sentence and its cures. Evidence is a record
(`results.kill.Evidence`) of a kind, its numbers and their source.
"""
