"""An asynchronous client in greenlets: straight-line code that shares one pool of connections.

Look for: async_context() is `async with` for greenlets, and await_() is `await`. The session is made by a
function, as aiohttp wants a running loop for that. A Timeout cancels the request that it interrupts.

    python examples/aiohttp_in_greenlets.py http://127.0.0.1:8000/ http://127.0.0.1:8000/missing
"""

import sys

import aiohttp

import bridge


def size_of(session, url):
    with bridge.Timeout(10), bridge.async_context(session.get, url) as response:
        return response.status, len(bridge.await_(response.read()))


if __name__ == "__main__":
    with bridge.async_context(aiohttp.ClientSession) as session:
        jobs = {url: bridge.spawn(size_of, session, url) for url in sys.argv[1:]}
        for url, job in jobs.items():
            status, size = job.get()
            print(status, size, url)
