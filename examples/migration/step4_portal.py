"""Step 4 of 5: everything is a coroutine, and some of it still blocks.

Look for: bridge.run(), under which every task may call blocking code. The queue is the old one; queue.get()
without `await` stands in the middle of a coroutine, and the other tasks go on.

    python examples/migration/step4_portal.py http://127.0.0.1:8000/
"""

import asyncio
import re
import sys
from urllib.parse import urljoin

import httpx

import bridge
from bridge.queue import JoinableQueue


async def fetch(client, url):
    response = await client.get(url)
    return response.text


async def work(client, queue, found):
    while True:
        url = queue.get()  # blocks, in a coroutine: only this task waits
        try:
            page = await fetch(client, url)
            found[url] = re.search("<title>(.*?)</title>", page)[1]
            for link in re.findall('href="(.*?)"', page):
                target = urljoin(url, link)
                if target not in found:
                    found[target] = None
                    queue.put(target)
        finally:
            queue.task_done()


async def crawl(start):
    queue = JoinableQueue()
    found = {start: None}
    queue.put(start)
    async with httpx.AsyncClient() as client:
        workers = [asyncio.create_task(work(client, queue, found)) for _ in range(5)]
        queue.join()  # and so does this
        for worker in workers:
            worker.cancel()
    return found


if __name__ == "__main__":
    for url, title in sorted(bridge.run(crawl, sys.argv[1]).items()):
        print(title, url)
