"""No twins: a rewrite in asyncio has no threads."""
