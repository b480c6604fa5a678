"""Step 1 of 5: a crawler as it has run for years, on gevent.

Look for: greenlets, a queue between them, and the standard library's blocking urllib after patch_all().

    python examples/migration/step1_gevent.py http://127.0.0.1:8000/          # with gevent
    python -m bridge examples/migration/step1_gevent.py http://127.0.0.1:8000/   # the same file, on uvloop
"""
# ruff: noqa: E402

from gevent import monkey

monkey.patch_all()

import re
import sys
from urllib.parse import urljoin
from urllib.request import urlopen

import gevent
from gevent.queue import JoinableQueue


def fetch(url):
    with urlopen(url) as response:
        return response.read().decode()


def work(queue, found):
    while True:
        url = queue.get()
        try:
            page = fetch(url)
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
    workers = [gevent.spawn(work, queue, found) for _ in range(5)]
    queue.join()
    gevent.killall(workers)
    return found


if __name__ == "__main__":
    for url, title in sorted(crawl(sys.argv[1]).items()):
        print(title, url)
