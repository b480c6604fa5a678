"""boto3 and paramiko, patched, against servers in the same thread. Programs in processes of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]


def test_boto3_with_moto(run_fresh: Run) -> None:
    for name in ("boto3", "moto", "flask", "flask_cors"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    out = run_fresh(
        """
        from bridge import monkey
        monkey.patch_all()
        import concurrent.futures, io, logging
        import boto3
        import bridge
        from moto.server import ThreadedMotoServer
        logging.getLogger("werkzeug").setLevel("ERROR")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        session = boto3.session.Session("id", "secret", region_name="us-east-1")
        s3 = session.client("s3", endpoint_url=f"http://{host}:{port}")
        s3.create_bucket(Bucket="bucket")
        def work(i):
            s3.put_object(Bucket="bucket", Key=f"key{i}", Body=b"x" * i)
            return len(s3.get_object(Bucket="bucket", Key=f"key{i}")["Body"].read())
        jobs = [bridge.spawn(work, i) for i in range(1, 9)]
        bridge.joinall(jobs, raise_error=True)
        assert [job.value for job in jobs] == list(range(1, 9))
        # boto3's own pool of threads
        data = bytes(9_000_000)
        s3.upload_fileobj(io.BytesIO(data), "bucket", "large")
        received = io.BytesIO()
        s3.download_fileobj("bucket", "large", received)
        assert received.getvalue() == data
        s3.close()
        server.stop()
        print("done")
        """,
        NO_PROXY="*",
    )
    assert out == "done\n"


def test_paramiko(run_fresh: Run) -> None:
    pytest.importorskip("paramiko", reason="paramiko is not installed")
    out = run_fresh("""
        import warnings
        warnings.simplefilter("ignore")  # of cryptography, about ciphers that paramiko knows
        from bridge import monkey
        monkey.patch_all()
        import socket, threading
        import bridge
        import paramiko

        class Server(paramiko.ServerInterface):
            def check_auth_password(self, username, password):
                return paramiko.AUTH_SUCCESSFUL if password == "secret" else paramiko.AUTH_FAILED
            def check_channel_request(self, kind, chanid):
                return paramiko.OPEN_SUCCEEDED
            def check_channel_exec_request(self, channel, command):
                def answer():
                    assert channel.recv(10) == b"go"  # not before the request is granted
                    channel.sendall(command.upper())
                    channel.send_exit_status(3)
                    channel.close()
                threading.Thread(target=answer).start()
                return True

        key = paramiko.RSAKey.generate(2048)
        listener = socket.create_server(("127.0.0.1", 0))
        transports = []
        def serve():
            while True:
                connection, _ = listener.accept()
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transport.start_server(server=Server(), event=threading.Event())
                transports.append(transport)
        serving = bridge.spawn(serve)

        def ask(i):
            with paramiko.SSHClient() as client:
                client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
                client.connect(
                    "127.0.0.1", listener.getsockname()[1], "me", "secret" if i else "wrong",
                    look_for_keys=False, allow_agent=False, timeout=30, banner_timeout=30, auth_timeout=30,
                )
                stdin, stdout, _ = client.exec_command(f"command {i}")
                stdin.write("go")
                return stdout.read(), stdout.channel.recv_exit_status()
        jobs = [bridge.spawn(ask, i) for i in range(1, 5)]
        bridge.joinall(jobs, raise_error=True)
        assert [job.value for job in jobs] == [(b"COMMAND %d" % i, 3) for i in range(1, 5)]
        try:
            ask(0)
        except paramiko.AuthenticationException:
            print("refused")
        serving.kill()
        listener.close()
        for transport in transports:
            transport.close()
    """)
    assert out == "refused\n"
