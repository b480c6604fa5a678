"""Step 5 of 5: asyncio, and nothing else.

Look for: what has changed since step 4 is the queue, which is asyncio's and is awaited. A program need not
go all the way: it may stay at any step for ever.

    python examples/migration/step5_asyncio.py http://127.0.0.1:8000/
"""

import asyncio
import re
import sys
from urllib.parse import urljoin

import httpx


async def fetch(client, url):
    response = await client.get(url)
    return response.text


async def work(client, queue, found):
    while True:
        url = await queue.get()
        try:
            page = await fetch(client, url)
            found[url] = re.search("<title>(.*?)</title>", page)[1]
            for link in re.findall('href="(.*?)"', page):
                target = urljoin(url, link)
                if target not in found:
                    found[target] = None
                    queue.put_nowait(target)
        finally:
            queue.task_done()


async def crawl(start):
    queue = asyncio.Queue()
    found = {start: None}
    queue.put_nowait(start)
    async with httpx.AsyncClient() as client:
        workers = [asyncio.create_task(work(client, queue, found)) for _ in range(5)]
        await queue.join()
        for worker in workers:
            worker.cancel()
    return found


if __name__ == "__main__":
    for url, title in sorted(asyncio.run(crawl(sys.argv[1])).items()):
        print(title, url)
