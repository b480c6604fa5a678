"""Step 3 of 5: one function is asynchronous, and called from greenlets.

Look for: fetch() is `async def` and keeps its connections open in an httpx client; the workers are
greenlets as before and call it by bridge.await_(). Nothing is patched any more: nothing that blocks is left
in the libraries.

    python examples/migration/step3_first_async_function.py http://127.0.0.1:8000/
"""

import re
import sys
from urllib.parse import urljoin

import httpx

import bridge
from bridge.queue import JoinableQueue


async def fetch(client, url):
    response = await client.get(url)
    return response.text


def work(client, queue, found):
    while True:
        url = queue.get()
        try:
            page = bridge.await_(fetch(client, url))
            found[url] = re.search("<title>(.*?)</title>", page)[1]
            for link in re.findall('href="(.*?)"', page):
                target = urljoin(url, link)
                if target not in found:
                    found[target] = None
                    queue.put(target)
        finally:
            queue.task_done()


def crawl(start):
    queue = JoinableQueue()
    found = {start: None}
    queue.put(start)
    with bridge.async_context(httpx.AsyncClient) as client:
        workers = [bridge.spawn(work, client, queue, found) for _ in range(5)]
        queue.join()
        bridge.killall(workers)
    return found


if __name__ == "__main__":
    for url, title in sorted(crawl(sys.argv[1]).items()):
        print(title, url)
