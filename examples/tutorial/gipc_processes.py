"""gipc: child processes with a loop of their own, and pipes that block only the greenlet (pip install gipc).

Run it with `python -m bridge examples/tutorial/gipc_processes.py`. Look for: the parent goes on ticking while
it waits for the child.
"""
import gevent
import gipc

def child(reader, writer):
    """In the child: answer questions until there are none."""
    with reader, writer:
        for i in range(5):
            writer.put('%s in %d' % (reader.get(), i))
            gevent.sleep(0.02)

def main():
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.005)

    ticker = gevent.spawn(tick)
    with gipc.pipe() as (child_reader, parent_writer), gipc.pipe() as (parent_reader, child_writer):
        process = gipc.start_process(child, args=(child_reader, child_writer))
        for _ in range(5):
            parent_writer.put('hi')
            print(parent_reader.get())
        process.join()
    ticker.kill()
    print('exit code %d' % process.exitcode)
    print('ticked meanwhile: %s' % (len(ticks) > 5))

if __name__ == '__main__':
    main()
