"""A wire between the portal and one operator that can be cut in one direction: what is asked still arrives, what is answered
does not."""

import contextlib
import socket
import threading


class Proxy:
    """Listens on a port of its own and passes on to another. `deaf`: answers are swallowed until it is healed, and the
    callers of that time never get one."""

    def __init__(self, target: int) -> None:
        self.target, self.deaf, self.swallowed = target, threading.Event(), 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=60)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answering: bool) -> None:
        swallowed = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answering and (self.deaf.is_set() or swallowed):
                    swallowed = True
                    continue
                sink.sendall(data)
        self.swallowed += swallowed
        if not swallowed:  # whose answer was lost must wait for it until their own patience ends
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.close()
