"""Step 2 of 5: the same crawler with bridge in gevent's place.

Look for: two new lines, the first two of the program. From then on `import gevent` gives bridge, whatever is
installed, and the program runs on uvloop. (Starting it by `python -m bridge` does the same without the two
lines.)

    python examples/migration/step2_drop_in.py http://127.0.0.1:8000/
"""
# ruff: noqa: E402

import bridge

bridge.install_as_gevent()

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
