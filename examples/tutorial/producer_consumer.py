"""Producer and consumer as a plain generator, without gevent: where coroutines come from.

Look for: "Send" and "Got" take turns, because `send()` jumps into the consumer and `yield` back.
"""
def coroutine(func):
    def ret():
        f = func()
        next(f)
        return f
    return ret

@coroutine
def consumer():
    print("Wait to getting a task")
    while True:
        n = (yield)
        print("Got %s" % n)

import time
def producer():
    c = consumer()
    task_id = 0
    while task_id < 3:  # the tutorial's producer never ends
        time.sleep(0.1)
        print("Send a task %s to consumer" % task_id)
        c.send("task %s" % task_id)
        task_id += 1

if __name__ == "__main__":
    producer()
