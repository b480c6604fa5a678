"""A program that would sleep for 1000 seconds ends cleanly when it gets SIGQUIT (press Ctrl-\\).

Look for: after the one line it prints, the signal ends it at once, with status 0 and no traceback.
"""
import gevent
import signal

def run_forever():
    print('Running, send SIGQUIT to end', flush=True)
    gevent.sleep(1000)

if __name__ == '__main__':
    gevent.signal(signal.SIGQUIT, gevent.shutdown)
    thread = gevent.spawn(run_forever)
    thread.join()
