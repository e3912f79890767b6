"""An https server that answers as it is told, and an authority for certificates."""

import http.server
import ssl
import threading

import pytest

from broker.dev.ca import DevelopmentAuthority


class KeyServer:
    """A key server on https whose answer can be changed, with a count of the requests."""

    def __init__(self, authority, folder):
        self.status = 200
        self.headers = {}
        self.body = b""
        self.arrived = threading.Event()
        self.requests = []
        self.hold = None  # a threading.Event to wait for before the answer
        world = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                world.requests.append((self.path, dict(self.headers)))
                world.arrived.set()
                if world.hold is not None:
                    world.hold.wait(5)
                self.send_response(world.status)
                for name, value in world.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(world.body)))
                self.end_headers()
                self.wfile.write(world.body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None
        cert, key = authority.server("localhost").write(folder, "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"https://localhost:{self.port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self):
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="session")
def authority():
    """Gives one authority for the run."""
    return DevelopmentAuthority.create()


@pytest.fixture
def ca_file(authority, tmp_path):
    """Gives the authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.cert_pem)
    return path


@pytest.fixture
def key_server(authority, tmp_path):
    """Gives a key server."""
    server = KeyServer(authority, tmp_path)
    yield server
    server.close()
