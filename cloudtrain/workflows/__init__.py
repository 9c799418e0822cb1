"""One module a verb. Each reads like the sentence that describes the verb.

A workflow takes a `Context` and returns a value; it emits events and never prints,
parses no flags, and knows no cloud but through its provider.
"""
