"""The same work four times in a pool of processes, then four times in a pool of greenlets.

Look for: False (processes finish in a new order each time; seldom, by luck, True), then always True.
"""
import time

def echo(i):
    time.sleep(0.001)
    return i

# Processes that are not forked (macOS, Python 3.14) import this file once more: hence the guard.
if __name__ == '__main__':

    # Non Deterministic Process Pool

    from multiprocessing.pool import Pool

    p = Pool(10)
    run1 = [a for a in p.imap_unordered(echo, range(10))]
    run2 = [a for a in p.imap_unordered(echo, range(10))]
    run3 = [a for a in p.imap_unordered(echo, range(10))]
    run4 = [a for a in p.imap_unordered(echo, range(10))]

    print(run1 == run2 == run3 == run4)
    p.close()

    # Deterministic Gevent Pool

    from gevent.pool import Pool

    p = Pool(10)
    run1 = [a for a in p.imap_unordered(echo, range(10))]
    run2 = [a for a in p.imap_unordered(echo, range(10))]
    run3 = [a for a in p.imap_unordered(echo, range(10))]
    run4 = [a for a in p.imap_unordered(echo, range(10))]

    print(run1 == run2 == run3 == run4)
