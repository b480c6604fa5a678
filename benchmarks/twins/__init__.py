"""The cases' work as plain asyncio coroutines: `twins.X.name` is the twin of `cases.X.name`.

A case without one has nothing of the kind in asyncio; its column shows a dash.
"""
