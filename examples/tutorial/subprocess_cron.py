"""Another program runs; `communicate` waits for its end, and the cron goes on meanwhile.

Look for: some crons, then the name of the system.
"""
import gevent
from gevent.subprocess import Popen, PIPE

def cron():
    while True:
        print("cron")
        gevent.sleep(0.04)

g = gevent.spawn(cron)
sub = Popen(['sleep 0.2; uname'], stdout=PIPE, shell=True)
out, err = sub.communicate()
g.kill()
print(out.decode().rstrip())
